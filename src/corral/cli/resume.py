"""`corral resume`: Let a paused sandbox NAME go on, its clock set right."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral resume app
"""


@click.command("resume", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
def command(name: str) -> None:
    """Let a paused sandbox NAME go on, its clock set right."""
    from . import keeping

    keeping.talk(name, lambda kept: kept.resume())
    click.echo(name)
