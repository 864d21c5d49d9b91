"""`corral attach`: a terminal of an agent that stays when nobody looks at it."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..terminals import MAIN
from .options import known_name

if TYPE_CHECKING:
    from ..keeper.client import Session

EPILOG = """\b
Examples:
  corral attach app                        agent 1 at work: its session main; Ctrl-\\ detaches
  corral attach app --agent 2 claude -- claude        another, started now if it is not there
  corral attach app claude -d -- claude    start it, do not look at it
  corral attach app claude --type 'fix the test\\r'    press keys; \\r is Enter, \\e Escape
  corral attach app claude --capture       its screen as text
  corral attach app --list
  corral attach app claude --kill

\b
The session main runs the program of the agent's recipe where it has one, as [[agent]] recipe =
"claude" says; any other session, and that of an agent without a recipe, runs a shell.

\b
A session runs on when you detach, when your terminal is closed and when the connection breaks. It
ends with its program, or with the sandbox.
Exit status: 0 after detaching; the program's when it ended; 125 when corral itself failed.
"""

_COMMAND = "corral.attach.command"
_KEY = "ctrl-\\"


class _Attach(click.Command):
    """What follows -- is the program's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] NAME [SESSION] [-- CMD [ARG]...]")


def _key(_ctx: click.Context, _parameter: click.Parameter, value: str) -> bytes:
    """The byte that a control key sends."""
    letter = value.lower().removeprefix("ctrl-").upper()
    if not value.lower().startswith("ctrl-") or len(letter) != 1 or not "@" <= letter <= "_":
        raise click.BadParameter("say ctrl- and a letter or one of @[\\]^_, as ctrl-a.")
    return bytes([ord(letter) & 0x1F])


def _typed(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> bytes | None:
    """Text with \\r, \\e, \\xNN and the like."""
    if value is None:
        return None
    try:
        decoded, _size = codecs.escape_decode(value.replace("\\e", "\\x1b").encode())
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    return bytes(decoded)


@click.command("attach", cls=_Attach, epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("session", default=MAIN)
@click.option("--agent", type=click.IntRange(min=1), default=1, metavar="N", help="Whose it is.")
@click.option("-d", "--detach", is_flag=True, help="Start it, and do not attach.")
@click.option("--watch", is_flag=True, help="See it; what you type does not count.")
@click.option("--detach-key", default=_KEY, callback=_key, metavar="KEY", help="Default: ctrl-\\.")
@click.option("-w", "--workdir", metavar="DIR", help="Where CMD starts; default: the workspace.")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable for CMD, or pass yours on. Repeatable.",
)
@click.option("--list", "listing", is_flag=True, help="List the sessions of all agents.")
@click.option("--capture", is_flag=True, help="Print the screen as text.")
@click.option(
    "--history",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="LINES",
    help="With --capture: also so many lines that have left the screen.",
)
@click.option("--type", "typed", callback=_typed, metavar="TEXT", help="Press these keys.")
@click.option("--kill", is_flag=True, help="End the session and its program.")
@click.option("--json", "as_json", is_flag=True, help="With --list: as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    session: str,
    agent: int,
    detach: bool,
    watch: bool,
    detach_key: bytes,
    workdir: str | None,
    env: tuple[str, ...],
    listing: bool,
    capture: bool,
    history: int,
    typed: bytes | None,
    kill: bool,
    as_json: bool,
) -> None:
    """Attach to a session of an agent of sandbox NAME; start it if there is none."""
    from . import keeping

    which = (agent, session)
    cmd: tuple[str, ...] = ctx.meta.get(_COMMAND, ())
    asked = [given for given in (listing, capture, typed is not None, kill, detach) if given]
    if len(asked) > 1 or (cmd and (listing or capture or typed is not None or kill)):
        raise click.UsageError("Only one of --list, --capture, --type, --kill, --detach at once.")
    if listing:
        _list(name, as_json=as_json)
    elif capture:
        click.echo(
            keeping.talk(name, lambda kept: kept.capture_session(which, history=history)), nl=False
        )
    elif typed is not None:
        keeping.talk(name, lambda kept: kept.type_in_session(which, typed))
    elif kill:
        keeping.talk(name, lambda kept: kept.end_session(which))
    else:
        _attach(name, which, cmd, env, workdir, detach=detach, watch=watch, key=detach_key)


def _attach(
    name: str,
    which: Session,
    cmd: tuple[str, ...],
    env: tuple[str, ...],
    workdir: str | None,
    *,
    detach: bool,
    watch: bool,
    key: bytes,
) -> None:
    from . import inside, watched
    from .keeping import say

    asked = watched.Wanted(
        argv=cmd,
        environment=inside.variables(env, dict(os.environ)),
        workdir=workdir,
        watch=watch,
        key=key,
    )
    if detach:
        watched.open_only(name, which, asked)
        return
    over, status = watched.attach(name, which, asked)
    agent = f" --agent {which[0]}" if which[0] != 1 else ""
    if not over:
        say(f"detached; it runs on. Attach again: corral attach {name} {which[1]}{agent}")
        return
    if status:
        say(f"the session {which[1]} ended with status {status}.")
    sys.exit(status or 0)


def _list(name: str, *, as_json: bool) -> None:
    import msgspec

    from ..channel.failures import printable
    from . import keeping

    found = keeping.talk(name, lambda kept: kept.sessions())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    rows: list[tuple[Any, ...]] = [
        ("AGENT", "SESSION", "SIZE", "CLIENTS", "LAST OUTPUT", "COMMAND")
    ]
    for each in found:
        ago = max(time.time() - each.output, 0)
        size = f"{each.size[1]}x{each.size[0]}"
        shown = printable(" ".join(each.argv))[:60]
        rows.append((each.agent, each.session, size, each.clients, f"{ago:.0f} s ago", shown))
    widths = [max(len(str(row[at])) for row in rows) for at in range(5)]
    for row in rows:
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, str(row[5])]))
