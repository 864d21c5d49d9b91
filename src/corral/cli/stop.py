"""`corral stop`: end a kept sandbox, which can be started again."""

from __future__ import annotations

import click

from .options import grace_option, known_name

EPILOG = """\b
Examples:
  corral stop app
  corral stop app --timeout 1m    give what runs in it a minute after TERM
"""


@click.command("stop", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@grace_option
def command(name: str, timeout: float) -> None:
    """Stop sandbox NAME: TERM to its commands, then everything is written back and it ends."""
    from ..keeper.store import Record
    from . import keeping

    record = Record.find(name)
    stopped = keeping.stop(record, timeout)
    keeping.show_end(record)
    if stopped:
        click.echo(name)
    else:
        keeping.say(f"{name} does not run.")
