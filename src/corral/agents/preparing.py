"""Everything that has to be there before an agent starts: key, program, home."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..events import Notice, Report
from ..search import changeable
from ..spec import Loaded
from . import homes, images
from .model import Recipe
from .programs import Found, find_need, find_on_host
from .using import Use, Way, use


def prepare(
    recipe: Recipe,
    loaded: Loaded,
    environ: Mapping[str, str],
    report: Report,
    way: Way,
    *,
    number: int = 1,
    import_settings: bool = False,
    inside: str | None = None,
) -> Use:
    """The agent `number` of a sandbox, with its program installed and its home made.

    loaded: what the user says (spec.collect), whose project file is accepted. way: to its model,
    see `reach`, which is asked before anything is made. inside: where it finds the workspace, if
    not at its own path. Raises ConfigError, FetchError, HostError, ImageError, MissingProgramError.
    """
    workspace = loaded.place.workspace
    program = find(recipe, environ, workspace, report)
    home = homes.ensure_home(recipe, workspace, number)
    if import_settings:
        from .importing import import_settings as imported

        imported(recipe, home, workspace, inside or workspace, environ, report)
    for path in homes.seed(recipe, home, workspace):
        report(
            Notice(
                level="warning",
                message=f"{path} of {recipe.name} was not written: a link is in its way.",
            )
        )
    return use(recipe, loaded, program, home, way)


def find(recipe: Recipe, environ: Mapping[str, str], workspace: str, report: Report) -> Found:
    """The agent's program: the version that the user has asked for, this machine's own, or the
    recipe's, installed when it is not there."""
    asked = images.chosen().get(recipe.name)
    path_env, home = environ.get("PATH", ""), environ.get("HOME", "")
    outside = changeable() | {os.path.realpath(workspace)}
    if asked is None:
        own = find_on_host(recipe.table.program, path_env, home, outside)
        if own is not None:
            return _with_needs(own, recipe, environ, outside)
    from .installing import ensure_image

    found = ensure_image(images.wanted(recipe, asked), environ, report)
    return _with_needs(found, recipe, environ, outside)


def _with_needs(
    found: Found, recipe: Recipe, environ: Mapping[str, str], outside: frozenset[str]
) -> Found:
    """With the folders of the programs that it needs, where those are in the user's home."""
    tools = dict.fromkeys(found.tools)
    for need in recipe.table.install.needs:
        name = need.partition(">")[0].strip()
        there = find_need(name, environ.get("PATH", ""), environ.get("HOME", ""), outside)
        tools |= dict.fromkeys(there.tools if there is not None else ())
    return Found(found.path, tuple(tools), found.image)
