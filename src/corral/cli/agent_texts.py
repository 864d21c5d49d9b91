"""What `corral agent` shows of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..agents import Recipe, images, recipes
from ..agents.checking import Step
from ..agents.programs import find_on_host
from ..errors import ConfigError, CorralError
from ..search import changeable
from ..spec.text import printable

_MARKS = {True: "ok", False: "FAILED", None: "-"}


def rows(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each recipe, the wrong ones too."""
    found: list[dict[str, Any]] = []
    for recipe in recipes():
        if isinstance(recipe, ConfigError):
            found.append({"name": "?", "program": None, "summary": recipe.message, "own": True})
        else:
            found.append(
                {
                    "name": recipe.name,
                    "program": _program(recipe, environ),
                    "summary": printable(recipe.table.summary),
                    "own": recipe.own,
                }
            )
    return found


def _program(recipe: Recipe, environ: Mapping[str, str]) -> str | None:
    """Where it would be found now; None where it would be installed, or cannot be."""
    asked = images.chosen().get(recipe.name)
    if asked is None:
        own = find_on_host(
            recipe.table.program, environ.get("PATH", ""), environ.get("HOME", ""), changeable()
        )
        if own is not None:
            return own.path
    try:
        wanted = images.wanted(recipe, asked)
    except CorralError:
        return None
    there = "installed" if images.installed(wanted) else "not installed yet"
    return f"{wanted.version}, {there}"


def as_value(recipe: Recipe) -> dict[str, Any]:
    """For --json."""
    table: dict[str, Any] = msgspec.to_builtins(recipe.table)
    return {"name": recipe.name, "origin": recipe.origin, "own": recipe.own, **table}


def step_line(step: Step) -> str:
    """A step of a check."""
    return f"{_MARKS[step.ok]:<8}{step.name:<10}{printable(step.detail)}".rstrip()
