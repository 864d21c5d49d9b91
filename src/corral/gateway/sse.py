"""Server-sent events, as they come in pieces (WHATWG HTML, 9.2.6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_EVENT = 8 << 20  # bytes; what is longer passes, but is not looked into
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")


class Events:
    """Splits a stream into events. Together, what `feed` and `end` give is what they were given."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0  # bytes of _rest in which no end is

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Events that are whole now, each with the empty line at its end."""
        self._rest += data
        while found := _END.search(self._rest, max(0, self._seen - 3)):
            event = bytes(self._rest[: found.end()])
            del self._rest[: found.end()]
            self._seen = 0
            yield event
        self._seen = len(self._rest)
        if self._seen > MAX_EVENT:
            yield self.end()

    def end(self) -> bytes:
        """What is left."""
        rest = bytes(self._rest)
        self._rest.clear()
        self._seen = 0
        return rest


def data_of(event: bytes) -> bytes:
    """The data of an event: of its lines `data:`, joined."""
    lines = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return b"\n".join(lines)
