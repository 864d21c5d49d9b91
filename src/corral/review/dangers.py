"""Which changes need a yes of their own, and why. Pure; what is looked for is in dangers.toml."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

import msgspec

from .model import Change, Danger, Found
from .names import folded, hides
from .patch import Contents

# Files of which only a part is run: the keys, with dots between those of tables in tables, below
# which a change counts.
_PARTS = {
    "package.json": (
        *("scripts", "bin", "packagemanager", "dependencies", "devdependencies", "workspaces"),
        *("optionaldependencies", "peerdependencies", "overrides", "resolutions", "pnpm"),
    ),
    "composer.json": ("scripts", "require", "require-dev", "repositories", "config"),
    "pyproject.toml": (
        *("build-system", "dependency-groups", "project.dependencies", "tool.hatch.build"),
        *("project.optional-dependencies", "tool.setuptools", "tool.uv", "tool.pdm"),
        *("tool.poetry.dependencies", "tool.poetry.group", "tool.poetry.source"),
        *("tool.poetry.build", "tool.hatch.envs"),
    ),
}
_MAX_PARSED = 4 << 20
_MOST_LINKS = 40  # that the kernel follows for one path (MAXSYMLINKS in linux/namei.h)


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    folders: tuple[str, ...]


@cache
def _rules() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """(name, reason, what a folded path with a slash before it must match)."""
    text = resources.files(__package__).joinpath("dangers.toml").read_text(encoding="utf-8")
    found = msgspec.convert(tomllib.loads(text), dict[str, _Rule])
    return tuple(
        (
            name,
            rule.reason,
            re.compile(
                "|".join(
                    [
                        *(f"/{_glob(each)}$" for each in (*rule.names, *rule.paths)),
                        *(f"/{_glob(each)}(?:/|$)" for each in rule.folders),
                    ]
                )
            ),
        )
        for name, rule in found.items()
    )


def _glob(text: str) -> str:
    return re.escape(text.lower()).replace(r"\*", "[^/]*")


@cache
def _any() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern.pattern})" for _name, _reason, pattern in _rules()))


def by_path(path: str) -> Iterator[Danger]:
    """What a path alone says."""
    shown = "/" + "/".join(folded(part) for part in path.split("/"))
    if _any().search(shown):
        for name, reason, pattern in _rules():
            if pattern.search(shown):
                yield Danger(rule=name, reason=reason)


def dangers(
    change: Change, contents: Contents, found: Mapping[str, Found], twins: Mapping[str, int]
) -> tuple[Danger, ...]:
    """Why a change needs a yes of its own; none for most.

    found: all that is there now. twins: how many names of it are one when case does not count.
    """
    reasons = list(by_path(change.path))
    reasons += _repositories(change, found)
    reasons += _bits(change, found)
    reasons += _parts(change, contents)
    if change.old is None:
        reasons += [Danger(rule="name", reason=why) for why in dict.fromkeys(hides(change.path))]
        if twins.get(fold_path(change.path), 0) > 1:
            why = "it has the name of another file where case does not count"
            reasons.append(Danger(rule="name", reason=why))
    return tuple(dict.fromkeys(reasons))


def fold_path(path: str) -> str:
    """A path as a file system sees it that folds names."""
    return "/".join(folded(part) for part in path.split("/"))


def twins_of(found: Mapping[str, Found]) -> dict[str, int]:
    """How many names are the same where case does not count."""
    counts: dict[str, int] = {}
    for path in found:
        key = fold_path(path)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _repositories(change: Change, found: Mapping[str, Found]) -> Iterator[Danger]:
    if change.repository:
        yield Danger(rule="repository", reason="it is part of a git repository, which git obeys")
        return
    folder = change.path.rpartition("/")[0]
    if not folder:
        return
    parts = folder.split("/")
    for n in range(1, len(parts) + 1):
        above = "/".join(parts[:n])
        if all(f"{above}/{name}" in found for name in ("HEAD", "objects", "refs")):
            yield Danger(rule="repository", reason="it is in a folder that git takes for its own")
            return


def _bits(change: Change, found: Mapping[str, Found]) -> Iterator[Danger]:
    if change.new is None:
        return
    if change.new.executable and not (change.old and change.old.executable):
        yield Danger(rule="executable", reason="it can be run as a program now")
    if change.new.kind == "link":
        if _leads_out(change.path.rpartition("/")[0], change.new.link, found):
            yield Danger(rule="link", reason="a link that leads out of the folder")
        elif not change.new.link.isprintable():
            yield Danger(rule="link", reason="a link with control or invisible characters")


def _leads_out(folder: str, link: str, found: Mapping[str, Found]) -> bool:
    """Whether a link in `folder` leads out of the tree, by way of other links in it or directly."""
    at = folder.split("/") if folder else []
    todo, links = [link], 0
    while todo:
        text = todo.pop()
        if text.startswith("/"):
            return True
        first, _, rest = text.partition("/")
        if rest := rest.lstrip("/"):
            todo.append(rest)
        if first in ("", "."):
            continue
        if first == "..":
            if not at:
                return True
            at.pop()
            continue
        at.append(first)
        there = found.get("/".join(at))
        if there is not None and there.kind == "link":
            links += 1
            if links > _MOST_LINKS:
                return False  # in circles, or to nothing that the kernel would follow
            at.pop()
            todo.append(there.link)
    return False


def _parts(change: Change, contents: Contents) -> Iterator[Danger]:
    name = folded(change.path.rpartition("/")[2])
    keys = _PARTS.get(name)
    if keys is None or change.new is None:
        return
    old, new = (_parsed(name, content) for content in (contents.old, contents.new))
    if new is None or (old is None and contents.old != b""):
        yield Danger(rule="scripts", reason="it cannot be read, and installers run parts of it")
        return
    for key in keys:
        if _below(new, key) != _below(old or {}, key):
            reason = f"its “{key}” decide what installers and builds run"
            yield Danger(rule="scripts", reason=reason)
            return


def _parsed(name: str, content: bytes | None) -> dict[str, object] | None:
    if content is None or len(content) > _MAX_PARSED:
        return None
    try:
        text = content.decode()
        value = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _below(table: dict[str, object], key: str) -> object:
    """What is at a key, without regard to case; None where there is nothing."""
    at: object = table
    for part in key.split("."):
        if not isinstance(at, dict):
            return None
        at = next((value for name, value in at.items() if str(name).lower() == part), None)
    return at
