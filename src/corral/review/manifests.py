"""Files of which only a part is run, or decides what is: which keys count. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

from .model import Danger
from .names import folded
from .patch import Contents

# By name the keys, with dots between those of tables in tables, below which a change counts.
_PARTS = {
    "package.json": (
        *("scripts", "bin", "directories", "gypfile", "packagemanager", "volta", "workspaces"),
        *("dependencies", "devdependencies", "optionaldependencies", "peerdependencies"),
        *("bundledependencies", "bundleddependencies", "dependenciesmeta", "trusteddependencies"),
        *("patcheddependencies", "overrides", "resolutions", "catalog", "catalogs", "pnpm"),
        # Hooks of git's, and what they run.
        *("husky", "simple-git-hooks", "githooks", "pre-commit", "pre-push", "lint-staged"),
        *("nano-staged", "commitlint", "config"),
        # What editors and services are set by.
        *("eslintconfig", "prettier", "stylelint", "renovate", "devengines"),
    ),
    "composer.json": ("scripts", "require", "require-dev", "repositories", "config", "bin"),
    "pyproject.toml": (
        *("build-system", "dependency-groups", "project.dependencies", "project.dynamic"),
        *("project.optional-dependencies", "project.scripts", "project.gui-scripts"),
        *("project.entry-points", "tool.setuptools", "tool.uv", "tool.pdm", "tool.hatch"),
        *("tool.poetry.dependencies", "tool.poetry.dev-dependencies", "tool.poetry.group"),
        *("tool.poetry.source", "tool.poetry.build", "tool.poetry.scripts", "tool.poetry.plugins"),
        *("tool.maturin", "tool.scikit-build", "tool.rye", "tool.pixi", "tool.cibuildwheel"),
    ),
    # An editor that is opened has build scripts and procedural macros built and run.
    "cargo.toml": (
        *("package.build", "package.links", "lib", "dependencies", "target", "workspace"),
        *("dev-dependencies", "dev_dependencies", "build-dependencies", "build_dependencies"),
        *("patch", "replace"),
    ),
}
_MAX_PARSED = 4 << 20


def is_manifest(name: str) -> bool:
    """Whether parts of a file of that name count."""
    return folded(name) in _PARTS


def parts(name: str, contents: Contents) -> Iterator[Danger]:
    """What a change of a file says that is called `name`."""
    name = folded(name)
    keys = _PARTS.get(name)
    if keys is None:
        return
    old, new = (_parsed(name, content) for content in (contents.old, contents.new))
    if new is None or (old is None and contents.old != b""):
        yield Danger(rule="scripts", reason="it cannot be read, and installers run parts of it")
        return
    for key in keys:
        if _below(new, key) != _below(old or {}, key):
            reason = f"its “{key}” decide what installers, builds, hooks or editors run"
            yield Danger(rule="scripts", reason=reason)
            return


def _parsed(name: str, content: bytes | None) -> dict[str, object] | None:
    if content is None or len(content) > _MAX_PARSED:
        return None
    try:
        text = content.decode()
        value = (
            tomllib.loads(text)
            if name.endswith(".toml")
            else json.loads(text, object_pairs_hook=_every)
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _every(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A table; of a key that is there twice all values, as which of them counts differs."""
    found: dict[str, object] = dict(pairs)
    if len(found) < len(pairs):
        every: dict[str, list[object]] = {}
        for key, value in pairs:
            every.setdefault(key, []).append(value)
        found |= {key: tuple(values) for key, values in every.items() if len(values) > 1}
    return found


def _below(table: dict[str, object], key: str) -> dict[tuple[str, ...], object]:
    """What is at a key: all that some reader takes for it, as some have no regard to case."""
    found: dict[tuple[str, ...], object] = {(): table}
    for part in key.split("."):
        found = {
            (*path, name): value
            for path, at in found.items()
            if isinstance(at, dict)
            for name, value in at.items()
            if name.casefold() == part
        }
    return found
