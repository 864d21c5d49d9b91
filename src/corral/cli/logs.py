"""`corral logs`: what happened in a kept sandbox, for a person."""

from __future__ import annotations

import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral logs app               starts, ends, commands, warnings
  corral logs app -f            and what comes
  corral logs app --console     what the guest's kernel says
"""


@click.command("logs", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("-f", "--follow", is_flag=True, help="Go on until the sandbox has ended.")
@click.option("--console", is_flag=True, help="The guest's console in place of events.")
def command(name: str, follow: bool, console: bool) -> None:
    """Show what happened in sandbox NAME, also when it does not run any more."""
    from ..keeper.store import Record
    from ..spec.text import harmless
    from . import narration, reading

    record = Record.find(name)
    if console:
        write_console = reading.Plain() if sys.stdout.isatty() else reading.out
        reading.show([record], "console", follow=follow, write=write_console)
        return

    def write(data: bytes) -> None:
        for event in reading.parsed(data):
            click.echo(narration.line(event))

    reading.show([record], "events", follow=follow, write=write)
    problem = record.status().problem
    if problem is not None and not record.is_kept():
        click.echo(f"It ended by itself: {harmless(problem.message)}", err=True)
