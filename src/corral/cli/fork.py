"""`corral fork`: copies of a sandbox that go on from where it is."""

from __future__ import annotations

import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral fork app           app-1 goes on from where app is, and so does app
  corral fork app -n 3      app-1, app-2 and app-3

\b
Each copy has its own name, host name, machine id, clock and kernel randomness, and a copy of the
workspace: `corral ps` shows where. `corral rm` of a copy removes that, too.
"""


@click.command("fork", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option(
    "-n",
    "--number",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many copies.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def command(name: str, number: int, as_json: bool) -> None:
    """Make copies of sandbox NAME, programs and all, that go on from where it is now.

    It must have been made with --checkpoints.
    """
    from . import saving

    sys.exit(saving.fork(name, number, json=as_json))
