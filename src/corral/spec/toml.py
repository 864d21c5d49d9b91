"""From the bytes of a corral.toml to checked values by dotted key.

Every error names the file, the line as far as it can be told, the key, and the nearest known
key. Nothing in the file is shown unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ..errors import ConfigError
from .model import TABLES, ConfigTable
from .settings import SETTINGS
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


def parse_document(content: bytes, name: str, base: Base) -> tuple[dict[str, object], str]:
    """(values by dotted key, the decoded text) of the file called `name`; ConfigError if wrong.

    Items of lists come as tuples of parsed items.
    """
    import tomllib

    shown = printable(name)
    try:
        text = content.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown} is not UTF-8 (byte {error.start + 1}).") from error
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, and an integer of more than 4300 digits.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{shown} is not valid TOML: {printable(reason)}.") from error
    _refuse_unknown(document, shown, text)
    _check_types(document, shown, text)
    return _values(document, shown, text, base), text


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
    for table, content in document.items():
        if table not in TABLES:
            close = nearest(table, [*TABLES, *known_keys()])
            raise _unknown(location(shown, text, toml_key(table)), close, list(TABLES))
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


def _unknown(where: str, close: str | None, here: list[str]) -> ConfigError:
    return ConfigError(
        f"{where} is not a known key.",
        hint=f"Did you mean {close}?" if close else f"Known here: {', '.join(here)}.",
    )


def _check_types(document: Mapping[str, object], shown: str, text: str) -> None:
    try:
        msgspec.convert(document, ConfigTable)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        key = re.sub(r"\[[^\]]*\]", "", path.strip("`").removeprefix("$").lstrip("."))
        raise ConfigError(f"{location(shown, text, key)}: {_worded(reason)}.") from error


def _worded(reason: str) -> str:
    if match := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", reason):
        wanted = " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | "))
        return f"expected {wanted}, not {_KINDS.get(match[2], match[2])}"
    if match := re.fullmatch(r"Object missing required field `([^`]+)`", reason):
        return f"{match[1]} is missing"
    return printable(reason[:1].lower() + reason[1:])


def _values(document: Mapping[str, object], shown: str, text: str, base: Base) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, setting in SETTINGS.items():
        table, _, field = key.partition(".")
        content = document.get(table)
        raw = content.get(field) if field and isinstance(content, dict) else content
        if raw is None or (not field and not isinstance(raw, list)):
            continue
        try:
            if key == "run.env" and isinstance(raw, dict):
                values[key] = tuple(variable(name, value) for name, value in raw.items())
            elif setting.adds and isinstance(raw, list):
                values[key] = tuple(setting.parse(item, base) for item in raw)
            else:
                values[key] = setting.parse(raw, base)
        except ConfigError as error:
            raise ConfigError(
                f"{location(shown, text, key)}: {error.message}", hint=error.hint
            ) from error
    return values


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
