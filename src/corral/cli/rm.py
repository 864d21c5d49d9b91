"""`corral rm`: forget a kept sandbox."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral rm app       one that is stopped
  corral rm -f app    end it first, at once
"""


@click.command("rm", epilog=EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=known_name)
@click.option("-f", "--force", is_flag=True, help="End it first if it runs, without a grace.")
def command(names: tuple[str, ...], force: bool) -> None:
    """Remove sandboxes: what was asked for, their logs and what they keep.

    The workspace stays as it is. Of `corral run` it removes what is written down under that name.
    """
    from . import keeping

    for name in names:
        keeping.remove(name, force=force)
        click.echo(name)
