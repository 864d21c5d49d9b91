"""`corral agent install`, `update` and `remove`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from ..agents import Recipe, find, images
from ..agents.installing import ensure_image, latest
from ..errors import ConfigError
from ..images.locks import locked
from .progress import Progress


def install(name: str, version: str | None, environ: Mapping[str, str]) -> None:
    """Install and say what was. Raises CorralError."""
    _install(find(name), version, environ)


def update(names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Install the newest of each. Raises CorralError."""
    for name in names or _installed():
        recipe = find(name)
        wanted = images.wanted(recipe)
        newest = latest(wanted, environ)
        if images.chosen().get(name) == newest and images.installed(images.wanted(recipe, newest)):
            click.echo(f"{name} {newest} is the newest")
        else:
            _install(recipe, newest, environ)


def remove(name: str) -> None:
    """Forget the version. Raises CorralError."""
    with locked("agents"):
        if name not in images.chosen():
            raise ConfigError(
                f"no version of “{name[:40]}” was installed on purpose.",
                hint="See: corral agent list",
            )
        images.choose(name, None)
    click.echo(f"{name}: this machine's own program, or the recipe's version, from now on")


def _install(recipe: Recipe, version: str | None, environ: Mapping[str, str]) -> None:
    wanted = images.wanted(recipe, version)
    progress = Progress()
    try:
        found = ensure_image(wanted, environ, progress, whole=True)
    finally:
        progress.stop()
    with locked("agents"):
        images.choose(recipe.name, wanted.version)
    click.echo(f"{recipe.name} {wanted.version}: {found.path}")


def _installed() -> list[str]:
    """Agents that corral has images of."""
    folder = images.images_folder()
    manifests = [images.manifest_of(each) for each in folder.iterdir()] if folder.is_dir() else []
    names = sorted({each.agent for each in manifests if each is not None} | set(images.chosen()))
    if not names:
        raise ConfigError(
            "corral has installed no agent yet.", hint="Install one: corral agent install claude"
        )
    return names
