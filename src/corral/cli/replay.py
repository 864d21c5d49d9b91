"""`corral replay`: what an agent's terminal showed, played again."""

from __future__ import annotations

import json
import time

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral replay app                       the latest recording; Ctrl-C ends it
  corral replay app claude --speed 4      the latest of the session claude, four times as fast
  corral replay app run                   the latest of corral run
  corral replay app --agent 2 --idle-limit 1
  corral replay app --text                what was to be read, without waiting
  corral replay app --list
  corral replay app claude.20261122-084512
"""


@click.command("replay", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("session", default="latest")
@click.option("--agent", type=click.IntRange(min=1), metavar="N", help="Only of this agent.")
@click.option(
    "--speed", type=click.FloatRange(0.01, 1000), default=1.0, metavar="X", help="Times as fast."
)
@click.option(
    "--idle-limit",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest wait between two changes.",
)
@click.option("--text", is_flag=True, help="Only what was to be read, as plain lines.")
@click.option("--list", "listing", is_flag=True, help="List the recordings that are kept.")
@click.option("--json", "as_json", is_flag=True, help="With --list: as JSON.")
def command(
    name: str,
    session: str,
    agent: int | None,
    speed: float,
    idle_limit: float,
    text: bool,
    listing: bool,
    as_json: bool,
) -> None:
    """Play a recording of a terminal of the sandboxes called NAME.

    SESSION: a session's name, or that and the time as --list shows it; default: the latest of all.
    """
    from ..errors import UnknownSandboxError
    from ..spec.text import printable
    from ..terminals import recordings
    from . import playing

    folder = playing.folder_of(name)
    chosen, _, began = ("" if session == "latest" else session).partition(".")
    found = [
        each
        for each in recordings.listed(folder, agent=agent, session=chosen)
        if began in ("", each.began)
    ]
    if listing:
        for each in found:
            size = each.path.stat().st_size
            if as_json:
                line = {"agent": each.agent, "session": each.session, "began": each.began}
                click.echo(json.dumps({**line, "bytes": size, "path": str(each.path)}))
            else:
                click.echo(f"{each.session}.{each.began}  agent {each.agent}  {size >> 10} KiB")
        return
    if not found:
        raise UnknownSandboxError(
            f"no such recording is kept of “{printable(name, 60)}”.",
            hint="What has a terminal is recorded. See those there are: "
            f"corral replay {printable(name, 60)} --list",
        )
    if text:
        playing.read(found[-1])
    else:
        playing.play(found[-1], speed=speed, idle_limit=idle_limit, sleep=time.sleep)
