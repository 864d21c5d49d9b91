"""`corral start`: a kept sandbox again."""

from __future__ import annotations

import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral start app                 as it was asked for by `corral up`
  corral start app --foreground    with its events, until Ctrl-C

What programs had written outside the workspace and shares is gone.
"""


@click.command("start", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("--foreground", is_flag=True, help="Stay in front until it is stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
def command(name: str, foreground: bool, as_json: bool) -> None:
    """Start sandbox NAME again, from the folder and with the options that it was made with."""
    from . import keeping

    sys.exit(keeping.start(name, detach=not foreground, json=as_json))
