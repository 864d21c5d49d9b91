"""What an agent program prints, as events: text, tool calls, the result, usage. Pure.

    reader = Reader("claude-stream-json")
    for event in (*reader.feed(data), *reader.end()): ...

All of it was written by a guest: lines and texts are cut at bounds, what does not fit a format is
passed over and counted, and texts may hold anything: escape them before they reach a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from ..model import OutputFormat
from . import claude, codex, gemini, opencode
from .events import Called, OutputEvent, Returned, Said, Used

__all__ = ["Called", "OutputEvent", "Reader", "Returned", "Said", "Used"]

MAX_LINE = 4 << 20
"""Bytes of a line; tools' results are in lines as a whole. Longer ones are passed over."""
MAX_EVENTS = 100_000
"""Of one command; later ones are passed over, but for results and usage."""

_Parser = Callable[[Mapping[str, object]], Iterable[OutputEvent]]
_PARSERS: Mapping[str, _Parser] = {
    "claude-stream-json": claude.parse,
    "codex-json": codex.parse,
    "opencode-json": opencode.parse,
    "gemini-json": gemini.parse,
}


class Reader:
    """A stream of one command's standard output. passed_over: lines, or events, that were not."""

    def __init__(self, form: OutputFormat) -> None:
        self._parser = _PARSERS.get(form)  # None: text
        self._line = bytearray()
        self._skipping = False
        self._events = 0
        self.passed_over = 0

    def feed(self, data: bytes) -> list[OutputEvent]:
        """The events that these bytes complete."""
        events: list[OutputEvent] = []
        lines = data.split(b"\n")
        for number, part in enumerate(lines):
            if number:
                events += self._complete()
            if self._skipping:
                continue
            if len(self._line) + len(part) > MAX_LINE:
                self._line.clear()
                self._skipping = True
                self.passed_over += 1
                continue
            self._line += part
        return events

    def end(self) -> list[OutputEvent]:
        """What a last line without its end was."""
        return self._complete() if self._line else []

    def _complete(self) -> list[OutputEvent]:
        line, self._line = bytes(self._line), bytearray()
        if self._skipping:
            self._skipping = False
            return []
        return list(self._bounded(self._events_of(line)))

    def _bounded(self, events: Iterable[OutputEvent]) -> Iterable[OutputEvent]:
        for event in events:
            self._events += 1
            if self._events <= MAX_EVENTS or isinstance(event, (Returned, Used)):
                yield event
            else:
                self.passed_over += 1

    def _events_of(self, line: bytes) -> Iterable[OutputEvent]:
        if self._parser is None:
            return (Said.of(line.decode("utf-8", "replace")),)
        if not line.strip():
            return ()
        try:
            found = msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            self.passed_over += 1
            return ()
        if not isinstance(found, dict):
            self.passed_over += 1
            return ()
        return self._parser(found)
