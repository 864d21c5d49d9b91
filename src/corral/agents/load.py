"""From the bytes of a recipe to a Recipe: every error names the file, the line and the key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from ..errors import ConfigError
from ..spec.text import nearest, printable
from ..spec.toml import location, read_toml, worded
from .model import Check, Held, Import, Install, Provider, Recipe, RecipeTable
from .validate import NAME, problems

_TABLES: Mapping[str, type[msgspec.Struct]] = {"install": Install, "import": Import, "check": Check}
_NAMED: Mapping[str, tuple[str, type[msgspec.Struct]]] = {
    "gateway": ("DIALECT", Provider),
    "secrets": ("NAME", Held),
}


def parse_recipe(content: bytes, name: str, origin: str, *, own: bool = True) -> Recipe:
    """The recipe `name`, from a file's content; ConfigError says what is wrong with it.

    origin: the file as shown. own: whether it is the user's.
    """
    shown = printable(origin)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{shown}: “{printable(name, 60)}” is not a name for an agent.",
            hint="Lower-case letters, digits and hyphens are possible, a letter first, at most 32.",
        )
    text, document = read_toml(content, shown)
    _refuse_unknown(document, shown, text)
    table = _typed(document, shown, text)
    for key, problem in problems(table):
        raise ConfigError(f"{location(shown, text, key)}: {problem}")
    return Recipe(name=name, origin=origin, own=own, table=table)


def recipe_keys() -> list[str]:
    """Every key that a recipe may have, dotted; words in capitals stand for names."""
    keys: list[str] = []
    for word in RecipeTable.__struct_encode_fields__:
        if word in _TABLES:
            keys += [f"{word}.{below}" for below in _TABLES[word].__struct_fields__]
        elif word in _NAMED:
            name, model = _NAMED[word]
            keys += [f"{word}.{name}.{below}" for below in model.__struct_fields__]
        else:
            keys.append({"env": "env.NAME", "files": "files.PATH"}.get(word, word))
    return keys


def _refuse_unknown(document: Mapping[str, object], shown: str, text: str) -> None:
    _known(document, RecipeTable.__struct_encode_fields__, "", shown, text)
    for table, model in _TABLES.items():
        below = document.get(table)
        if isinstance(below, dict):
            _known(below, model.__struct_fields__, f"{table}.", shown, text)
    for table, (_name, model) in _NAMED.items():
        named = document.get(table)
        for name, below in named.items() if isinstance(named, dict) else ():
            if isinstance(below, dict):
                _known(below, model.__struct_fields__, f"{table}.{name}.", shown, text)


def _known(
    found: Mapping[str, object], fields: Iterable[str], prefix: str, shown: str, text: str
) -> None:
    names = list(fields)
    for key in found:
        if key not in names:
            close = nearest(key, names)
            here = ", ".join(prefix + name for name in names)
            raise ConfigError(
                f"{location(shown, text, prefix + key)} is not a known key.",
                hint=f"Did you mean {prefix}{close}?" if close else f"Known here: {here}.",
            )


def _typed(document: dict[str, object], shown: str, text: str) -> RecipeTable:
    try:
        return msgspec.convert(document, RecipeTable)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        key = re.sub(r"\[[^\]]*\]", "", path.strip("`").removeprefix("$").lstrip("."))
        where = location(shown, text, key) if key else shown
        raise ConfigError(f"{where}: {worded(reason)}.") from error
