"""asciicast v2, as asciinema has it: https://docs.asciinema.org/manual/asciicast/v2/

A line of JSON with the size and what it is; then a line for each event: [seconds, code, data].
Codes: o what was shown, r a new size as COLUMNSxROWS, m a mark. Input is not recorded: passwords
are typed. Files may have been cut off by a power cut, or be another's: reading is strict in what it
believes and skips what it does not understand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import msgspec

from .screen import MAX_COLUMNS, MAX_ROWS

MAX_LINE = 1 << 22  # bytes of one event


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line. timestamp: of its beginning, in seconds since 1970."""

    version: int
    width: int
    height: int
    timestamp: int = 0
    title: str = ""
    command: str = ""
    env: dict[str, str] = {}


class Event(msgspec.Struct, frozen=True, array_like=True):
    """time: seconds since the beginning."""

    time: float
    code: str
    data: str


def header(rows: int, columns: int, timestamp: float, *, title: str, command: str) -> bytes:
    """The first line of a recording."""
    found = {
        "version": 2,
        "width": columns,
        "height": rows,
        "timestamp": int(timestamp),
        "title": title,
        "command": command,
        "env": {"TERM": "xterm-256color"},
    }
    return json.dumps(found).encode() + b"\n"


def event(seconds: float, code: str, data: str) -> bytes:
    """A further line. In ASCII, control characters escaped: a terminal may show the file."""
    return json.dumps([round(max(seconds, 0.0), 6), code, data]).encode() + b"\n"


def read(lines: Iterable[bytes]) -> Iterator[Header | Event]:
    """A recording, or several one after the other; a line that is none is left out.

    Nothing comes before the first header. Times never go back.
    """
    begun, latest = False, 0.0
    for line in lines:
        if len(line) > MAX_LINE or not line.endswith(b"\n"):
            continue
        try:
            if line.startswith(b"{"):
                found = msgspec.json.decode(line, type=Header)
                if found.version == 2 and _fits(found.height, found.width):
                    begun, latest = True, 0.0
                    yield found
            elif begun:
                happened = msgspec.json.decode(line, type=Event)
                latest = max(latest, happened.time)
                yield msgspec.structs.replace(happened, time=latest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def size(data: str) -> tuple[int, int] | None:
    """(rows, columns) out of an `r` event; None for what is none."""
    columns, _, rows = data[:20].partition("x")
    if not (columns.isascii() and columns.isdigit() and rows.isascii() and rows.isdigit()):
        return None
    return (int(rows), int(columns)) if _fits(int(rows), int(columns)) else None


def _fits(rows: int, columns: int) -> bool:
    return 0 < rows <= MAX_ROWS and 0 < columns <= MAX_COLUMNS
