"""`corral start`: a kept sandbox again."""

from __future__ import annotations

import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral start app                 as it was asked for by `corral up`
  corral start app --foreground    with its events, until Ctrl-C

What programs wrote in the workspace, in writable shares and in what an agent's recipe keeps of its
home is there; with --disk that in the system and the home, too. What they wrote elsewhere is gone.
"""


@click.command("start", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("--foreground", is_flag=True, help="Stay in front until it is stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def command(name: str, foreground: bool, as_json: bool) -> None:
    """Start sandbox NAME again, from the folder and with the options that it was made with."""
    from . import keeping

    sys.exit(keeping.start(name, detach=not foreground, json=as_json))
