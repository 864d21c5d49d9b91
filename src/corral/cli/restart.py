"""`corral restart`: stop a kept sandbox and start it again."""

from __future__ import annotations

import sys

import click

from .options import grace_option, known_name

EPILOG = """\b
Examples:
  corral restart app
"""


@click.command("restart", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@grace_option
def command(name: str, timeout: float) -> None:
    """Stop sandbox NAME if it runs, and start it again."""
    from ..keeper.store import Record
    from . import keeping

    keeping.stop(Record.find(name), timeout)
    sys.exit(keeping.start(name, detach=True))
