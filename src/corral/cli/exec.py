"""`corral exec`: a command in a kept sandbox."""

from __future__ import annotations

import os
import sys
import time

import click

from .options import agent_option, known_name, stream_options
from .words import split

EPILOG = """\b
Examples:
  corral exec app -- make test
  corral exec app -t -- python3
  corral exec app -w /tmp -- ls -la
  corral exec app -e MODE=ci -- ./build.sh
  corral exec herd --agent 2 -- git log -1

\b
Exit status: the command's; 128+n when signal n ended it; 125 when corral itself failed; 126 when
the command cannot be executed; 127 when it is not found.
"""


class _Exec(click.Command):
    """Options may stand before and after NAME; what follows CMD is CMD's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options, name, rest = split(self, args)
        return super().parse_args(ctx, [*options, "--", *name, *rest])


@click.command("exec", cls=_Exec, epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@agent_option
@stream_options
@click.option("-u", "--user", metavar="NAME", help="Who runs CMD; the sandbox's user, or refused.")
@click.option("-w", "--workdir", metavar="DIR", help="Where CMD starts; default: the workspace.")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable, or pass yours on. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def command(
    name: str,
    cmd: tuple[str, ...],
    agent: int,
    terminal: bool | None,
    stdin: bool,
    user: str | None,
    workdir: str | None,
    env: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run CMD in sandbox NAME, which runs."""
    began = time.monotonic()
    from . import inside
    from .attach import Command

    environ = dict(os.environ)
    asked = Command(
        argv=cmd,
        terminal=terminal,
        stdin=stdin,
        as_json=as_json,
        environment=inside.variables(env, environ),
        workdir=workdir,
    )
    sys.exit(inside.run(name, asked, agent=agent, user=user, environ=environ, began=began))
