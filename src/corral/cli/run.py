"""`corral run`: a command in a new sandbox on the current folder."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from .herd_options import recipe_options
from .options import current_folder, sandbox_options, stream_options, wanted

EPILOG = """\b
Examples:
  corral run -- sh -c 'uname -a; git status'
  corral run -t bash                           a shell inside
  corral run --share ~/data:/data -- ls /data  a further folder, read-only
  corral run --mask .env --timeout 10m -- make test
  corral run -e GITHUB_USER -e MODE=ci -- ./build.sh
  corral run --allow @python -- .venv/bin/pip install -r requirements.txt
  corral run claude                            an agent that corral knows; its key stays outside
  corral run codex -- exec 'fix the failing test'
  corral run --review claude -- -p 'fix the failing test'

\b
CMD is an agent when corral has a recipe for it (corral agent list); after -- it is a plain
command: corral run -- claude.

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


PLAIN = "corral.plain"  # in a context's meta: whether -- stands before CMD


class _Run(click.Command):
    """Tells `corral run claude`, an agent, from `corral run -- claude`, a plain command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; what stands before CMD is noted."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        before = given[: len(given) - len(ctx.params.get("cmd") or ())]
        ctx.meta[PLAIN] = before[-1:] == ["--"]
        return rest


def _agents(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For completion: agents, as the first word."""
    from ..agents import names

    return [] if ctx.params.get("cmd") else [name for name in names() if name.startswith(begun)]


@click.command(
    "run",
    cls=_Run,
    context_settings={"allow_interspersed_args": False},
    epilog=EPILOG,
    help="Run CMD, or an agent that corral knows, in a new virtual machine on the current folder.",
)
@click.argument(
    "cmd", nargs=-1, required=True, metavar="CMD|AGENT [ARG]...", shell_complete=_agents
)
@click.option(
    "--no-recipe", is_flag=True, help="CMD is a plain command, also when it is an agent's name."
)
@recipe_options
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
@click.pass_context
def command(
    ctx: click.Context,
    /,
    cmd: tuple[str, ...],
    terminal: bool | None,
    stdin: bool,
    no_recipe: bool,
    import_settings: bool,
    share_auth: bool,
    **parameters: Any,
) -> None:
    """Plan, start, run, exit with the command's status."""
    from . import session
    from .asked import Asked, asked_for

    began = time.monotonic()
    agent: Asked | None = None
    if not no_recipe and not ctx.meta[PLAIN]:
        agent = asked_for(cmd, import_settings=import_settings, share_auth=share_auth)
    if agent is None and (import_settings or share_auth):
        raise click.UsageError(
            "--import-settings and --share-auth are for agents: corral agent list."
        )
    request = session.Request(
        argv=cmd,
        wanted=wanted(parameters),
        terminal=terminal,
        stdin=stdin,
        began=began,
        agent=agent,
    )
    sys.exit(session.run(request, current_folder(), dict(os.environ)))
