"""`corral events`: what happened in kept sandboxes, for scripts."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral events app       one JSON object a line
  corral events -f        of all that run, as they come
"""


@click.command("events", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=known_name)
@click.option("-f", "--follow", is_flag=True, help="Go on until the sandboxes have ended.")
def command(name: str | None, follow: bool) -> None:
    """Print the events of sandbox NAME, or of all, as JSON lines.

    Each has `time` (seconds since 1970), `sandbox` and `event`.
    """
    from ..keeper.store import Record, names
    from . import reading

    records = [Record.find(name)] if name else [Record(each) for each in names()]
    if follow:
        reading.show(records, "events", follow=True, write=reading.out)
        return
    lines = [
        (float(event.get("time", 0)), line)
        for record in records
        for line in reading.kept(record, "events").splitlines(keepends=True)
        for event in reading.parsed(line)
    ]
    for _time, line in sorted(lines, key=lambda pair: pair[0]):
        reading.out(line)
