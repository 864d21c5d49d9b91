"""What a command writes, bounded and made safe to show. No I/O."""

from __future__ import annotations

import codecs
import collections
import re

from ..agents.model import OutputFormat
from ..agents.output import Called, Reader, Returned, Said, Used
from .model import MAX_ANSWER, MAX_EVENTS, MAX_OUTPUT, MAX_SAID, AgentEvent

_PIECE = 16 << 10  # characters of one transcript message
_ODD = re.compile(r"[^\t\n\x20-\x7e]")


def shown(text: str) -> str:
    """Text without what could drive a terminal or hide: control and direction characters in
    escapes, lines and tabs as they are."""
    return _ODD.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


class Collector:
    """One stream of a command: the first half and the last of what is kept, and how much it was.

    limit: bytes that are kept.
    """

    def __init__(self, limit: int = MAX_OUTPUT) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0

    def feed(self, data: bytes) -> None:
        """What was written."""
        self.size += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-self._half :]
            if len(self._tail) > 2 * self._half:  # not at every piece: that would copy it all
                del self._tail[: -self._half]

    @property
    def truncated(self) -> bool:
        """Whether something is left out."""
        return self.size > 2 * self._half

    def text(self) -> str:
        """What is kept, as text: UTF-8, stray bytes replaced; where something is left out a line
        says so."""
        if not self.truncated:
            return shown((self._head + self._tail).decode("utf-8", "replace"))
        left = self.size - 2 * self._half
        first = self._head.decode("utf-8", "replace")
        last = self._tail[-self._half :].decode("utf-8", "replace")
        return f"{shown(first)}\n[{left} bytes are left out]\n{shown(last)}"


class Events:
    """What an agent program prints, as events: the first half and the last of what is kept.

    form: a recipe's. failed: it says so itself.
    """

    def __init__(self, form: OutputFormat) -> None:
        self._reader = Reader(form) if form != "text" else None
        self._first: list[AgentEvent] = []
        self._last: collections.deque[AgentEvent] = collections.deque(maxlen=MAX_EVENTS // 2)
        self._count = 0
        self._answer = ""
        self.failed = False

    def feed(self, data: bytes) -> None:
        """What was written; nothing at the end."""
        if self._reader is None:
            return
        for event in self._reader.feed(data) if data else self._reader.end():
            if isinstance(event, Said | Returned) and event.text:
                self._answer = event.text
            if isinstance(event, Returned):
                self.failed = not event.ok
            if isinstance(event, Said | Called | Returned | Used):
                self._keep(event)

    def _keep(self, event: AgentEvent) -> None:
        self._count += 1
        if len(self._first) < MAX_EVENTS // 2:
            self._first.append(event)
        else:
            self._last.append(event)

    @property
    def answer(self) -> str | None:
        """What it came to, or said last; None: nothing."""
        return shown(self._answer[:MAX_ANSWER]) or None

    @property
    def kept(self) -> tuple[AgentEvent, ...]:
        """Those that are kept, with texts that can be shown and are not long."""
        return tuple(_short(event) for event in (*self._first, *self._last))

    @property
    def truncated(self) -> bool:
        """Whether there were more."""
        return self._count > len(self._first) + len(self._last)


def _short(event: AgentEvent) -> AgentEvent:
    """With texts that can be shown, and are not long."""
    if isinstance(event, Said):
        cut = event.cut or len(event.text) > MAX_SAID
        return Said(text=shown(event.text[:MAX_SAID]), cut=cut)
    if isinstance(event, Called):
        return Called(tool=shown(event.tool), arguments=shown(event.arguments[:MAX_SAID]))
    if isinstance(event, Returned):
        return Returned(ok=event.ok, text=shown(event.text[:MAX_SAID]))
    return event


class Pieces:
    """The same as it comes, in pieces of text, until `limit` bytes of it."""

    def __init__(self, limit: int = MAX_OUTPUT) -> None:
        self._left = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """Pieces, as far as there is room."""
        data = data[: self._left]
        self._left -= len(data)
        text = shown(self._decoder.decode(data, final or not self._left))
        return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
