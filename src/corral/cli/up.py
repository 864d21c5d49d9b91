"""`corral up`: a sandbox on the current folder that stays."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .herd_options import action_option, disk_options, herd_options, recipe_options
from .options import current_folder, known_name, sandbox_options, wanted

EPILOG = """\b
Examples:
  corral up -d              start one, named as the folder, and return
  corral up                 in front, with its events, until Ctrl-C
  corral up web -d --memory 2g --share ~/data
  corral up herd -d --agents 4    four agents, each with a copy of the folder

\b
Options hold until the next `corral up`; `corral start` uses them again.
Exit status: 0; 125 when it cannot be started or ended by itself.
"""


@click.command("up", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=known_name)
@click.option("-d", "--detach", is_flag=True, help="Return when it is up; it stays.")
@recipe_options
@disk_options
@action_option
@herd_options
@sandbox_options
def command(
    name: str | None, detach: bool, import_settings: bool, share_auth: bool, **parameters: Any
) -> None:
    """Start a sandbox on the current folder, and keep it.

    NAME is the folder's own unless given.
    """
    from . import keeping

    asked = wanted({"name": name, **parameters})
    sys.exit(
        keeping.up(
            *(asked, current_folder(), dict(os.environ)),
            detach=detach,
            share_auth=share_auth,
            import_settings=import_settings,
        )
    )
