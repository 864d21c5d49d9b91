"""`corral restore`: go back to a checkpoint."""

from __future__ import annotations

import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral restore app before-upgrade

\b
What runs in app now is ended at once. Programs go on from where they were, with what they
had open; what they print to terminals of that time is lost. Files in the workspace stay.
"""


@click.command("restore", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("tag")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def command(name: str, tag: str, as_json: bool) -> None:
    """Have sandbox NAME go on from its checkpoint TAG."""
    from . import saving

    sys.exit(saving.restore(name, tag, json=as_json))
