"""`corral pause`: Halt sandbox NAME: nothing in it runs, its memory stays."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral pause app
"""


@click.command("pause", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
def command(name: str) -> None:
    """Halt sandbox NAME: nothing in it runs, its memory stays."""
    from . import keeping

    keeping.talk(name, lambda kept: kept.pause())
    click.echo(name)
