"""`corral run`: a command in a new sandbox on the current folder."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from .options import current_folder, sandbox_options, stream_options, wanted

EPILOG = """\b
Examples:
  corral run -- sh -c 'uname -a; git status'
  corral run -t bash                           a shell inside
  corral run --share ~/data:/data -- ls /data  a further folder, read-only
  corral run --mask .env --timeout 10m -- make test
  corral run -e GITHUB_USER -e MODE=ci -- ./build.sh
  corral run --allow @python -- pip install -r requirements.txt
  corral run --gateway anthropic -- claude      its key stays outside

\b
Exit status: the command's; 128+n when signal n ended it; 124 after --timeout; 125 when corral
itself failed; 126 when the command cannot be executed; 127 when it is not found.
"""


def _refuse_agents(_ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None and value.strip() != "1":
        raise click.UsageError(
            "--agents is for `corral up`: a run has one command, and so one agent. Start several "
            "with `corral up NAME -d --agents N`, then: corral exec NAME --agent 2 -- CMD."
        )


def _refuse_disk(_ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("--disk is for `corral up`: a run keeps nothing that it writes.")


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    epilog=EPILOG,
    help="Run CMD in a new virtual machine on the current folder.",
)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@stream_options
@click.option("--timeout", metavar="TIME", help="End CMD after this time: 30s, 5m, 1h30m.")
@click.option("--name", metavar="NAME", help="The sandbox's name; default: the folder's.")
@sandbox_options
@click.option(
    "--disk", hidden=True, expose_value=False, callback=_refuse_disk, help="Refused: see `up`."
)
@click.option(
    "--agents", hidden=True, expose_value=False, callback=_refuse_agents, help="Refused: see `up`."
)
def command(cmd: tuple[str, ...], terminal: bool | None, stdin: bool, **parameters: Any) -> None:
    """Plan, start, run, exit with the command's status."""
    from . import session

    began = time.monotonic()
    request = session.Request(
        argv=cmd, wanted=wanted(parameters), terminal=terminal, stdin=stdin, began=began
    )
    sys.exit(session.run(request, current_folder(), dict(os.environ)))
