"""`corral wait`: until a kept sandbox has ended."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral wait app

\b
Exit status: 0 when it was stopped; 125, with the reason, when it ended by itself.
"""


@click.command("wait", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
def command(name: str) -> None:
    """Wait until sandbox NAME has ended; of one that does not run, at once."""
    from ..keeper.store import Record

    record = Record.find(name)
    record.wait_until_left()
    problem = record.status().problem
    if problem is not None:
        raise problem.error()
