"""`corral trust`: accept the project's corral.toml as it is now (see spec/trust.py)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, UsageError
from ..spec.files import CONFIG_NAME, current_folder
from ..spec.text import printable

if TYPE_CHECKING:
    from ..spec.load import Project
    from ..spec.trust import Widening


EPILOG = """\b
Examples:
  corral trust --show     what this project's corral.toml asks for
  corral trust            accept it, until it changes
  corral trust --remove   take that back
"""


@click.command(
    name="trust",
    epilog=EPILOG,
    help="Accept the project's corral.toml as it is now, or FILE. "
    "It may then widen what the sandbox gets, until it changes.",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--show", is_flag=True, help="Only show what it asks for and whether it is accepted.")
@click.option("--remove", is_flag=True, help="Take the acceptance back.")
def command(file: Path | None, show: bool, remove: bool) -> None:
    from ..spec import trust

    if show and remove:
        raise UsageError("--show and --remove exclude each other.")
    folder = current_folder()
    if remove:
        path = _path_to_forget(folder, file)
        gone = trust.forget(path)
        state = "is accepted no more" if gone else "was not accepted"
        click.echo(f"{printable(path)} {state}.")
        return
    project, asks = _read(folder, file)
    if asks:
        click.echo(f"{printable(project.path)} asks for:")
        for widening in asks:
            click.echo(f"  {widening.key}: {widening.text}")
    else:
        click.echo(f"{printable(project.path)} asks for nothing beyond what you give anyway.")
    if not show:
        # Recorded is the content that was read for the lines above, not what is there by now.
        trust.accept(project.path, project.sha256)
        click.echo("Accepted, until it changes.")
    elif trust.is_accepted(project.path, project.sha256):
        click.echo("It is accepted as it is now.")
    elif trust.is_known(project.path):
        click.echo("It was accepted and has changed since. To accept it: corral trust")
    elif asks:
        click.echo("It is not accepted. To accept it: corral trust")


def _read(folder: Path, file: Path | None) -> tuple[Project, tuple[Widening, ...]]:
    from ..host.limits import capacity
    from ..spec.load import collect

    loaded = collect(folder, {}, os.environ, config_file=file, capacity=capacity())
    if loaded.project is None:
        raise ConfigError(
            f"there is no {CONFIG_NAME} in {printable(str(folder))} or above it.",
            hint="Write one with: corral config init",
        )
    return loaded.project, loaded.widenings


def _path_to_forget(folder: Path, file: Path | None) -> str:
    """The record's name for the file, which may be gone or wrong by now."""
    if file is not None:
        return os.path.realpath(folder / file)
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        if os.path.lexists(place / CONFIG_NAME):
            return str(place / CONFIG_NAME)
    return str(real / CONFIG_NAME)
