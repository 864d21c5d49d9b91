"""Lists of hosts that people need together, from the one data file presets.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

from .names import BadName


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What "@NAME" stands for.

    about: what it is for. sources: where that is said. hosts: as in a rule.
    """

    about: str
    sources: tuple[str, ...]
    hosts: tuple[str, ...]


@cache
def presets() -> dict[str, Preset]:
    """Every preset by name."""
    text = resources.files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Preset])


def hosts_of(name: str) -> tuple[str, ...]:
    """What "@NAME" stands for. Raises BadName when there is no such preset."""
    found = presets().get(name)
    if found is None:
        known = ", ".join(f"@{each}" for each in presets())
        raise BadName(f"there is no preset {'@' + name[:40]!a}; there are {known}.")
    return found.hosts
