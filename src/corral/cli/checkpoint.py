"""`corral checkpoint`: keep a sandbox as it is now."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral checkpoint app                 named after the time; it is printed
  corral checkpoint app before-upgrade
  corral checkpoint app before-upgrade --force
  corral checkpoint app before-upgrade --remove

\b
Programs in it stand still for a moment and run on. The memory, the disk and what is open are
kept; the workspace is yours and is not. `corral inspect app` lists the checkpoints.
"""


@click.command("checkpoint", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("tag", required=False)
@click.option("-f", "--force", is_flag=True, help="Replace a checkpoint of that tag.")
@click.option("--remove", is_flag=True, help="Remove the checkpoint instead.")
def command(name: str, tag: str | None, force: bool, remove: bool) -> None:
    """Keep sandbox NAME as it is now, to go back to it: see `corral restore`.

    It must have been made with --checkpoints.
    """
    from ..errors import UsageError
    from . import saving

    if remove:
        if tag is None:
            raise UsageError(
                "which checkpoint is to be removed?", hint=f"See: corral inspect {name}"
            )
        saving.remove(name, tag)
        click.echo(tag)
    else:
        click.echo(saving.checkpoint(name, tag, replace=force))
