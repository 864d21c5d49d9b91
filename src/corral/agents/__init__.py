"""Known agent programs: how each is found, started, confined, and what it says.

    recipe = find("claude")
    headless(recipe, "Fix the failing test")      # its command line

A recipe is one file: recipes/NAME.toml, or the user's own ~/.config/corral/agents/NAME.toml, which
goes before one of corral's. A project has none: a recipe says what a sandbox gets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .. import paths
from ..errors import ConfigError
from ..spec.files import read_config
from ..spec.text import nearest, printable
from .argv import environment, headless, interactive
from .load import parse_recipe
from .model import Reached, Recipe
from .validate import NAME

__all__ = [
    "Reached",
    "Recipe",
    "environment",
    "find",
    "headless",
    "interactive",
    "is_known",
    "names",
    "recipes",
    "source_of",
]

_BUILT_IN = Path(__file__).parent / "recipes"


def users_folder() -> Path:
    """Where the user's own recipes are, whether it exists or not."""
    return paths.config_file().parent / "agents"


def names() -> list[str]:
    """Every recipe that there is, in order."""
    found = {path.stem for path in _BUILT_IN.glob("*.toml")}
    with contextlib.suppress(OSError):  # a folder that cannot be read has none for us
        found |= {path.stem for path in users_folder().glob("*.toml") if NAME.fullmatch(path.stem)}
    return sorted(found)


def is_known(name: str) -> bool:
    """Whether there is a recipe of this name; a wrong one counts."""
    return bool(NAME.fullmatch(name)) and any(path.is_file() for path in _places(name))


def find(name: str) -> Recipe:
    """The recipe `name`. Raises ConfigError when there is none, or it is wrong."""
    for path in _places(name) if NAME.fullmatch(name) else ():
        content = read_config(path, follow=True)
        if content is None:
            continue
        own = path.parent != _BUILT_IN
        if own:
            _refuse_foreign(path)
        origin = str(path) if own else f"corral's recipes/{name}.toml"
        return parse_recipe(content, name, origin, own=own)
    close = nearest(name, names())
    raise ConfigError(
        f"there is no recipe for an agent “{printable(name, 60)}”.",
        hint=f"Did you mean {close}?" if close else f"There are: {', '.join(names())}.",
    )


def source_of(name: str) -> str:
    """The file of a recipe that `find` gives. Raises ConfigError."""
    for path in _places(name):
        content = read_config(path, follow=True)
        if content is not None:
            return content.decode("utf-8", "replace")
    return ""


def recipes() -> Iterator[Recipe | ConfigError]:
    """All of them, in order; in place of a wrong one, what is wrong with it."""
    for name in names():
        try:
            yield find(name)
        except ConfigError as error:
            yield error


def _places(name: str) -> tuple[Path, Path]:
    return users_folder() / f"{name}.toml", _BUILT_IN / f"{name}.toml"


def _refuse_foreign(path: Path) -> None:
    """Who writes a recipe decides what a sandbox gets, and which packages are installed."""
    import os

    status = path.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o002:
        raise ConfigError(
            f"{printable(str(path))} could have been changed by others (owner {status.st_uid}, "
            f"mode {status.st_mode & 0o777:o}).",
            hint=f"Make it yours alone: chmod 600 {printable(str(path))}",
        )
