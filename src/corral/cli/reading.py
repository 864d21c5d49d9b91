"""Logs of kept sandboxes, whether they run or not, for `logs` and `events`."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..errors import CorralError
from ..journal import contents, older
from ..keeper.store import Record
from ..spec.text import harmless
from . import terminal

What = Literal["events", "console"]
_FILES = {"events": "events.jsonl", "console": "console.log"}

Show = Callable[[bytes], None]


def kept(record: Record, what: What) -> bytes:
    """All of a log that is kept."""
    path = record.folder / _FILES[what]
    return b"".join(contents(older(path), path))


def show(records: Sequence[Record], what: What, *, follow: bool, write: Show) -> None:
    """Print logs; of sandboxes that run, with `follow`, until they have ended."""
    live = [record for record in records if follow and record.is_kept()]
    for record in records:
        if record not in live:
            write(kept(record, what))
    if live:
        asyncio.run(_follow_all(live, what, write))


async def _follow_all(records: list[Record], what: What, write: Show) -> None:
    await asyncio.gather(*(_follow(record, what, write) for record in records))


async def _follow(record: Record, what: What, write: Show) -> None:
    from ..keeper.client import connect

    rest = b""
    try:
        async with connect(record.name) as sandbox:
            stream = await sandbox.follow(what)
            while data := await stream.read():
                whole, newline, rest = (rest + data).rpartition(b"\n")
                write(whole + newline)
    except CorralError:  # perhaps it has just ended, as its log says
        if record.is_kept():
            raise
    write(rest)


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Events, from lines of JSON; a line that was cut off is left out."""
    found = []
    for text in data.splitlines():
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


class Plain:
    """To a terminal, which nothing in it can drive. What a guest's kernel says may be anybody's."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, data: bytes) -> None:
        """Write what came."""
        text = self._decoder.decode(data).replace("\r\n", "\n")
        out(harmless(text).encode())


def out(data: bytes) -> None:
    """To standard output, as it is."""
    if data:
        terminal.out(data)
