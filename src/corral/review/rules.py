"""What dangers.toml says of paths. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources

import msgspec

from .model import Danger
from .names import folded


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    folders: tuple[str, ...]


@cache
def _listed() -> dict[str, _Rule]:
    text = resources.files(__package__).joinpath("dangers.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Rule])


@cache
def _rules() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """(name, reason, what a folded path with a slash before it must match)."""
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
        for name, rule in _listed().items()
    )


def _glob(text: str) -> str:
    return re.escape(text.lower()).replace(r"\*", "[^/]*")


@cache
def _any() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern.pattern})" for _name, _reason, pattern in _rules()))


@cache
def _beginnings() -> re.Pattern[str]:
    """What the path of a folder ends with in which the rest of a listed path may be."""
    found = []
    for rule in _listed().values():
        for each in (*rule.paths, *rule.folders):
            parts = each.split("/")
            found += ["/".join(parts[:n]) for n in range(1, len(parts))]
    return re.compile("|".join(f"/{_glob(each)}$" for each in dict.fromkeys(found)))


def by_path(path: str) -> Iterator[Danger]:
    """What a path alone says."""
    shown = "/" + fold_path(path)
    if _any().search(shown):
        for name, reason, pattern in _rules():
            if pattern.search(shown):
                yield Danger(rule=name, reason=reason)


def beginning(path: str) -> str | None:
    """What a path ends with, if that is how a listed one begins: “.github” of “a/.GitHub”."""
    match = _beginnings().search("/" + fold_path(path))
    return match[0][1:] if match else None


def fold_path(path: str) -> str:
    """A path as a file system sees it that folds names."""
    return "/".join(folded(part) for part in path.split("/"))
