"""`corral run`: a command in a new sandbox on the current folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..errors import HostError

EPILOG = """\b
Examples:
  corral run -- sh -c 'uname -a; git status'
  corral run -t bash                           a shell inside
  corral run --share ~/data:/data -- ls /data  a further folder, read-only
  corral run --mask .env --timeout 10m -- make test
  corral run -e GITHUB_USER -e MODE=ci -- ./build.sh

\b
Exit status: the command's; 128+n when signal n ended it; 124 after --timeout; 125 when corral
itself failed; 126 when the command cannot be executed; 127 when it is not found.
"""

# Names of parameters here -> keys of settings (spec/layers.py).
KEYS = {
    "cpus": "machine.cpus",
    "memory": "machine.memory",
    "accel": "machine.accel",
    "carrier": "machine.carrier",
    "filesystem": "machine.filesystem",
    "kernel": "machine.kernel",
    "p9_cache": "machine.p9_cache",
    "p9_msize": "machine.p9_msize",
    "read_only": "workspace.read_only",
    "mask": "workspace.mask",
    "unprotect": "workspace.unprotect",
    "share": "share",
    "user": "run.user",
    "workdir": "run.workdir",
    "env": "run.env",
    "timeout": "run.timeout",
    "tool": "run.tools",
    "image": "run.image",
    "name": "name",
}


def _note_debug(ctx: click.Context, _option: click.Parameter, value: bool) -> bool:
    """Tell the entry point, which shows tracebacks, too."""
    from .entry import DEBUG

    ctx.meta[DEBUG] = value
    return value


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    epilog=EPILOG,
    help="Run CMD in a new virtual machine on the current folder.",
)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@click.option(
    "--share",
    multiple=True,
    metavar="SRC[:DST][:ro|:rw]",
    help="A further folder; read-only unless :rw. Repeatable.",
)
@click.option("--ro", "read_only", is_flag=True, default=None, help="The workspace is read-only.")
@click.option("-u", "--user", metavar="NAME", help="Who runs CMD: your own name, or root.")
@click.option(
    "--mask",
    multiple=True,
    metavar="PATTERN",
    help="Hide files, as in .gitignore (.env, say). Repeatable.",
)
@click.option(
    "--unprotect",
    multiple=True,
    metavar="PATH",
    help="Let CMD change .git/config, .git/hooks or corral.toml.",
)
@click.option("-w", "--workdir", metavar="DIR", help="Where CMD starts; default: the workspace.")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable, or pass yours on. Repeatable.",
)
@click.option("--cpus", metavar="N", help="Virtual CPUs, 1 to 128.")
@click.option("--memory", metavar="SIZE", help="Memory: 4g, 8gb, 512MiB.")
@click.option("--timeout", metavar="TIME", help="End CMD after this time: 30s, 5m, 1h30m.")
@click.option("--name", metavar="NAME", help="The sandbox's name; default: the folder's.")
@click.option("--image", metavar="IMAGE", help="Where programs come from: host.")
@click.option(
    "--tool", multiple=True, metavar="PATH", help="A further read-only program folder. Repeatable."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A configuration file in place of corral.toml.",
)
@click.option(
    "-t/-T",
    "--tty/--no-tty",
    "terminal",
    default=None,
    help="Give CMD a terminal or not; default: if you are at one.",
)
@click.option(
    "-i/-I",
    "--stdin/--no-stdin",
    "stdin",
    default=True,
    help="Pass standard input on (default) or not.",
)
@click.option("--console", is_flag=True, help="Show the guest's console on standard error.")
@click.option("--accel", metavar="auto|kvm|tcg", help="How the machine is run; auto measures.")
@click.option("--carrier", metavar="auto|vsock|serial", help="What carries the channel.")
@click.option("--filesystem", metavar="auto|virtiofs|9p", help="How folders are served.")
@click.option("--kernel", metavar="FILE", help="A guest kernel of your own.")
@click.option("--p9-cache", metavar="MODE", help="9p: none, loose, fscache or mmap.")
@click.option("--p9-msize", metavar="SIZE", help="9p: bytes of one message.")
@click.option("--force", is_flag=True, help="Allow a workspace such as / or your home.")
@click.option("--yes", is_flag=True, help="Install missing packages without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.option(
    "--debug",
    is_flag=True,
    callback=_note_debug,
    help="Keep the logs and print where; show tracebacks.",
)
def command(
    cmd: tuple[str, ...],
    config_file: Path | None,
    terminal: bool | None,
    stdin: bool,
    console: bool,
    force: bool,
    yes: bool,
    as_json: bool,
    debug: bool,
    **settings: Any,
) -> None:
    """Plan, start, run, exit with the command's status."""
    from . import session

    began = time.monotonic()
    overrides = {KEYS[name]: _plain(value) for name, value in settings.items()}
    request = session.Request(
        argv=cmd,
        overrides={key: value for key, value in overrides.items() if value is not None},
        config_file=config_file,
        force=force,
        assume_yes=yes,
        terminal=terminal,
        stdin=stdin,
        console=console,
        debug=debug,
        as_json=as_json,
        began=began,
    )
    sys.exit(session.run(request, _current_folder(), dict(os.environ)))


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise HostError(
            f"the current folder cannot be used as a workspace: {error.strerror}.",
            hint="It may have been removed: go to another one (cd).",
        ) from error


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
