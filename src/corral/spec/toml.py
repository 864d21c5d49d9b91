"""From the bytes of a corral.toml to checked values by dotted key.

Every error names the file, the line as far as it can be told, the key, and the nearest known
key. Nothing in the file is shown unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ..errors import ConfigError
from ..policy import Gateway, Secret
from .credentials import is_credential
from .gateways import Doors, parse_gateway_table, parse_secret_table
from .network_settings import NamedSecret
from .settings import SETTINGS
from .tables import (
    DOOR_TABLES,
    NAMED_TABLES,
    TABLES,
    ConfigTable,
)
from .tables.keys import GatewayTable, SecretTable
from .text import nearest, printable, toml_key
from .values import Base, variable

_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[^=\s.]+)*)\s*=")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


class Document(Struct, frozen=True):
    """A file: values by dotted key, items of lists as tuples of parsed items; the decoded text."""

    values: dict[str, object]
    doors: Doors
    text: str


def parse_document(content: bytes, name: str, base: Base, *, own: bool = True) -> Document:
    """The file called `name`; ConfigError if it is wrong.

    own: whether it is the user's own file, which alone may say where keys are found.
    """
    shown = printable(name)
    text, document = read_toml(content, shown)
    _refuse_unknown(document, shown, text)
    if not own:
        _refuse_doors(document, shown, text)
    _check_types(document, shown, text)
    doors = _doors(document, shown, text, base)
    return Document(_values(document, shown, text, base, own=own), doors, text)


def read_toml(content: bytes, shown: str) -> tuple[str, dict[str, object]]:
    """A file's text and what it says; ConfigError if it is no TOML. shown: the file's name."""
    import tomllib

    try:
        text = content.decode("utf-8")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown} is not UTF-8 (byte {error.start + 1}).") from error
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, and an integer of more than 4300 digits.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{shown} is not valid TOML: {printable(reason)}.") from error


def line_of(text: str, key: str) -> int | None:
    """The line (from 1) where `key` is set or, failing that, where its table starts."""
    table, found, depth = "", None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _plain(header[1])
            here = table
        elif assignment := _ASSIGNMENT.match(line):
            here = ".".join(part for part in (table, _plain(assignment[1])) if part)
        else:
            continue
        if here == key:
            return number
        if len(here) > depth and key.startswith(here + "."):
            found, depth = number, len(here)
    return found


def location(shown: str, text: str, key: str) -> str:
    """`FILE, line N: key`, without the line where it cannot be told."""
    line = line_of(text, key)
    return f"{shown}{f', line {line}' if line else ''}: {printable(key, 100)}"


def known_keys() -> list[str]:
    """Every key that a configuration file may have, dotted."""
    return [
        f"{table}.{field}" for table, model in TABLES.items() for field in model.__struct_fields__
    ]


def _refuse_unknown(document: Mapping[str, object], shown: str, text: str) -> None:
    known = [*TABLES, *NAMED_TABLES]
    for table, content in document.items():
        if table in NAMED_TABLES:
            _refuse_unknown_below(table, content, shown, text)
            continue
        if table not in TABLES:
            close = nearest(table, [*known, *known_keys()])
            raise _unknown(location(shown, text, toml_key(table)), close, known)
        rows = content if isinstance(content, list) else [content]
        for row in rows:
            if not isinstance(row, dict):
                continue  # the wrong type is told by the check of types
            fields = TABLES[table].__struct_fields__
            for field in row:
                if field not in fields:
                    label = f"{table}.{toml_key(field)}"
                    here = [f"{table}.{known}" for known in fields]
                    close = nearest(f"{table}.{field}", known_keys())
                    raise _unknown(location(shown, text, label), close, here)


def _refuse_unknown_below(table: str, content: object, shown: str, text: str) -> None:
    """Keys of [table.NAME]; a `gateway.upstream` without a name is told as such."""
    fields = NAMED_TABLES[table].__struct_fields__
    for name, row in content.items() if isinstance(content, dict) else ():
        where = f"{table}.{toml_key(name)}"
        if not isinstance(row, dict):
            raise ConfigError(
                f"{location(shown, text, where)}: expected a table.",
                hint=f"Give it a name: [{table}.NAME].",
            )
        for field in row:
            if field not in fields:
                here = [f"{where}.{known}" for known in fields]
                label = f"{where}.{toml_key(field)}"
                raise _unknown(location(shown, text, label), nearest(label, here), here)


def _refuse_doors(document: Mapping[str, object], shown: str, text: str) -> None:
    for table in DOOR_TABLES:
        if table in document:
            raise ConfigError(
                f"{location(shown, text, table)}: keys, commands that print them and where they "
                "go are never taken from a project's file, accepted or not: it would decide what "
                "becomes of your credentials.",
                hint="Write it in your own config.toml (corral config show names its folder); "
                f"the project may ask for it by name: [network] {_ASKED[table]} = [...].",
            )


_ASKED = {"gateway": "gateways", "secrets": "secrets"}


def _unknown(where: str, close: str | None, here: list[str]) -> ConfigError:
    return ConfigError(
        f"{where} is not a known key.",
        hint=f"Did you mean {close}?" if close else f"Known here: {', '.join(here)}.",
    )


def _check_types(document: Mapping[str, object], shown: str, text: str) -> None:
    for table, model in NAMED_TABLES.items():
        named = document.get(table)
        for name, row in named.items() if isinstance(named, dict) else ():
            _check_type(row, model, f"{table}.{toml_key(name)}.", shown, text)
    _check_type(document, ConfigTable, "", shown, text)


def _check_type(content: object, model: type[Struct], prefix: str, shown: str, text: str) -> None:
    try:
        msgspec.convert(content, model)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        below = re.sub(r"\[[^\]]*\]", "", path.strip("`").removeprefix("$").lstrip("."))
        key = (prefix + below).rstrip(".")
        raise ConfigError(f"{location(shown, text, key)}: {worded(reason)}.") from error


def worded(reason: str) -> str:
    if match := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", reason):
        wanted = " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | "))
        return f"expected {wanted}, not {_KINDS.get(match[2], match[2])}"
    if match := re.fullmatch(r"Object missing required field `([^`]+)`", reason):
        return f"{match[1]} is missing"
    return printable(reason[:1].lower() + reason[1:])


def _doors(document: Mapping[str, object], shown: str, text: str, base: Base) -> Doors:
    gateways: dict[str, Gateway] = {}
    secrets: dict[str, Secret] = {}
    for table in DOOR_TABLES:
        named = document.get(table)
        for name, row in named.items() if isinstance(named, dict) else ():
            try:
                if table == "gateway":
                    wanted = msgspec.convert(row, GatewayTable)
                    gateways[name] = parse_gateway_table(name, wanted, base)
                else:
                    secret = msgspec.convert(row, SecretTable)
                    secrets[name] = parse_secret_table(name, secret, base)
            except ConfigError as error:
                label = table if is_credential(name) else f"{table}.{toml_key(name)}"
                raise ConfigError(
                    f"{location(shown, text, label)}: {error.message}", hint=error.hint
                ) from error
    return Doors(gateways, secrets)


def _values(
    document: Mapping[str, object], shown: str, text: str, base: Base, *, own: bool
) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, setting in SETTINGS.items():
        table, _, field = key.partition(".")
        content = document.get(table)
        raw = content.get(field) if field and isinstance(content, dict) else content
        if key == "actions" and isinstance(raw, dict):
            values[key] = _actions(raw, shown, text, base)
            continue
        if raw is None or (not field and not isinstance(raw, list)):
            continue
        try:
            if key == "run.env" and isinstance(raw, dict):
                values[key] = tuple(variable(name, value) for name, value in raw.items())
            elif setting.adds and isinstance(raw, list):
                values[key] = tuple(setting.parse(item, base) for item in raw)
                if not own:
                    _refuse_own_secrets(values[key])
            else:
                values[key] = setting.parse(raw, base)
        except ConfigError as error:
            raise ConfigError(
                f"{location(shown, text, key)}: {error.message}", hint=error.hint
            ) from error
    return values


def _actions(
    rows: Mapping[str, Mapping[str, object]], shown: str, text: str, base: Base
) -> tuple[object, ...]:
    found = []
    for name, row in rows.items():
        try:
            found.append(SETTINGS["actions"].parse({"name": name, **row}, base))
        except ConfigError as error:
            where = location(shown, text, f"actions.{toml_key(name)}")
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
    return tuple(found)


def _refuse_own_secrets(items: object) -> None:
    """A project's file says which of the user's secrets it wants, never where they go."""
    for item in items if isinstance(items, tuple) else ():
        if isinstance(item, NamedSecret) and item.hosts:
            raise ConfigError(
                f"where {item.name} may go is never taken from a project's file, accepted or not.",
                hint=f"Write [secrets.{item.name}] with its hosts in your own config.toml, and "
                f"name only {item.name} here.",
            )


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
