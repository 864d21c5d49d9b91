"""`corral jail`: a command in a jail on this machine, without a virtual machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import current_folder, stream_options

EPILOG = """\b
Examples:
  corral jail -- make                          this folder and the host's programs
  corral jail --ro -- python3 -m pytest        it may read the folder, not change it
  corral jail --deny .env --fwd-env CI -- npm test
  corral jail --network --tmpfs ~/.cache -- pip download requests
  corral jail --rw-bind ~/data:/data --limit-memory 2g -t bash

\b
What is not named is not there. But a jail is a process of this machine's own kernel: a fault of
that is a way out. With --network every service on this machine and its networks can be reached,
without rules. It is for programs that you trust; for an agent, use `corral run`.

\b
Exit status: the command's; 128+n when signal n ended it; 124 after --timeout; 125 when corral
itself failed; 126 when the command cannot be executed; 127 when it is not found.
"""


F = TypeVar("F", bound=Callable[..., Any])


def _many(name: str, *, metavar: str, help: str) -> Callable[[F], F]:
    return click.option(name, multiple=True, metavar=metavar, help=help)


@click.command(
    "jail",
    context_settings={"allow_interspersed_args": False},
    epilog=EPILOG,
    help="Run CMD in a jail on this machine, in the current folder. No virtual machine: for "
    "programs that you trust.",
)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@stream_options
@_many("--ro-bind", metavar="SRC[:DST]", help="A file or folder, read-only. Repeatable.")
@_many("--rw-bind", metavar="SRC[:DST]", help="One that may be changed. Repeatable.")
@_many("--try-ro-bind", metavar="SRC[:DST]", help="As --ro-bind, if there is one. Repeatable.")
@_many("--try-rw-bind", metavar="SRC[:DST]", help="As --rw-bind, if there is one. Repeatable.")
@click.option("--ro", "read_only", is_flag=True, help="The current folder is read-only.")
@click.option("--no-cwd", is_flag=True, help="The current folder is not there.")
@_many("--tmpfs", metavar="DIR", help="An empty folder in memory. Repeatable.")
@_many("--deny", metavar="PATH", help="A path that is not there, now or later. Repeatable.")
@click.option("--beneath", metavar="DIR", help="Links of binds must not lead out of this folder.")
@click.option("--network", is_flag=True, help="The host's network, all of it.")
@_many("--set-env", metavar="NAME=VALUE", help="Set a variable. Repeatable.")
@_many("--fwd-env", metavar="NAME", help="Pass a variable of yours on. Repeatable.")
@_many("--try-fwd-env", metavar="NAME", help="Pass it on if it is set. Repeatable.")
@_many("--tool", metavar="DIR", help="A further program folder, read-only. Repeatable.")
@click.option("--bare", is_flag=True, help="Without the host's programs: only what is named.")
@click.option("--hostname", metavar="NAME", default="jail", help="The host name; default: jail.")
@click.option("--time-zone", metavar="ZONE", help="Europe/Vienna; default: the host's.")
@click.option("--no-new-session", is_flag=True, help="Leave CMD in the session of its starter.")
@_many(
    "--seccomp",
    metavar="default|none|FILE",
    help="Which system calls CMD may make. Repeatable: all hold.",
)
@click.option(
    "--seccomp-mode",
    type=click.Choice(["errno", "log", "kill"]),
    default="errno",
    help="A refused call fails (default), is logged and allowed, or ends its process.",
)
@click.option("-w", "--workdir", metavar="DIR", help="Where CMD starts; default: this folder.")
@click.option("--limit-memory", metavar="SIZE", help="The most memory: 2g, 512MiB.")
@click.option("--limit-cpu", metavar="N%", help="The most processor time: 150% is one and a half.")
@click.option("--limit-pids", metavar="N", help="The most processes and threads.")
@click.option("--timeout", metavar="TIME", help="End CMD after this time: 30s, 5m, 1h30m.")
def command(cmd: tuple[str, ...], terminal: bool | None, stdin: bool, **parameters: Any) -> None:
    """Resolve, start, run, exit with the command's status."""
    from . import jailing

    made = jailing.wanted(parameters, current_folder())
    request = jailing.Request(
        argv=cmd, terminal=terminal, stdin=stdin, timeout=jailing.duration(parameters["timeout"])
    )
    sys.exit(jailing.run(made, request, dict(os.environ)))
