"""What a program writes to its terminal, taken apart: text, controls, sequences. Nothing is obeyed.

After the states of a VT500 (https://vt100.net/emu/dec_ansi_parser) and ECMA-48, over text: bytes
are UTF-8, wrong ones become U+FFFD. Control characters of eight bits (U+0080 to U+009F) count as
what they stand for. A control character within a sequence ends that. What is held of an unfinished
sequence is bounded; a longer one is passed over to its end.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import msgspec

MAX_SEQUENCE = 256  # characters of a control sequence; real ones have 40
MAX_STRING = 1024  # characters kept of a string (a title, say); the rest is passed over


class Text(msgspec.Struct, frozen=True):
    """Characters to show, none of them a control character."""

    text: str


class Control(msgspec.Struct, frozen=True):
    """One control character (C0)."""

    code: str


class Escape(msgspec.Struct, frozen=True):
    """ESC, intermediate characters, a final one."""

    intermediates: str
    final: str


class Csi(msgspec.Struct, frozen=True):
    """A control sequence: what stands before its final character is not checked in any way."""

    parameters: str
    intermediates: str
    final: str


class String(msgspec.Struct, frozen=True):
    """A command with a string. introducer: of `]P_^X` (OSC, DCS, APC, PM, SOS), as after ESC."""

    introducer: str
    content: str


Token = Text | Control | Escape | Csi | String

_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_CSI = re.compile(r"\x1b\[([0-?]*)([ -/]*)([@-~])")
_CSI_BEGUN = re.compile(r"\x1b\[[0-?]*[ -/]*\Z")
_ESCAPE = re.compile(r"\x1b([ -/]*)([0-~])")
_ESCAPE_BEGUN = re.compile(r"\x1b[ -/]*\Z")
_BROKEN = re.compile(r"\x1b\[[ -?]*[@-~]?")
_NOT_PARAMETER = re.compile(r"[^ -?]")
_STRING_END = re.compile(r"[\x07\x18\x1a\x1b]")
_STRINGS = frozenset("]P_^X")
_EIGHT_BITS = re.compile(r"[\x80-\x9f]")


class Parser:
    """Bytes in, tokens out; a sequence may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # of a sequence that is not complete
        self._string: str | None = None  # the introducer of the string that we are in
        self._content = ""
        self._skipping = False  # the rest of a control sequence that is too long

    def feed(self, data: bytes) -> Iterator[Token]:
        """What these bytes complete."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        if _EIGHT_BITS.search(text):
            text = _EIGHT_BITS.sub(lambda found: "\x1b" + chr(ord(found[0]) - 0x40), text)
        at = 0
        while at < len(text):
            if self._string is not None:
                at, token = self._in_string(text, at)
            elif self._skipping:
                at, token = self._skip(text, at)
            else:
                at, token = self._next(text, at)
            if token is not None:
                yield token

    def _next(self, text: str, at: int) -> tuple[int, Token | None]:
        if found := _TEXT.match(text, at):
            return found.end(), Text(found[0])
        if text[at] != "\x1b":
            return at + 1, Control(text[at])
        if found := _CSI.match(text, at):
            if found.end() - at > MAX_SEQUENCE:
                return found.end(), None
            return found.end(), Csi(found[1], found[2], found[3])
        if begun := _CSI_BEGUN.match(text, at) or _ESCAPE_BEGUN.match(text, at):
            if begun.end() - at > MAX_SEQUENCE:
                self._skipping = True
            else:
                self._rest = text[at:]
            return len(text), None
        if broken := _BROKEN.match(text, at):  # something is in it that does not belong there
            return broken.end(), None
        if found := _ESCAPE.match(text, at):
            if not found[1] and found[2] in _STRINGS:
                self._string, self._content = found[2], ""
                return found.end(), None
            return found.end(), Escape(found[1][:MAX_SEQUENCE], found[2])
        return at + 1, None  # ESC, and then a control character

    def _skip(self, text: str, at: int) -> tuple[int, Token | None]:
        found = _NOT_PARAMETER.search(text, at)
        if found is None:
            return len(text), None
        self._skipping = False
        return found.end() if "@" <= found[0] <= "~" else found.start(), None

    def _in_string(self, text: str, at: int) -> tuple[int, Token | None]:
        assert self._string is not None
        found = _STRING_END.search(text, at)
        end = len(text) if found is None else found.start()
        self._content += text[at : min(end, at + MAX_STRING - len(self._content))]
        if found is None:
            return end, None
        ends = found[0]
        if ends == "\x07" and self._string != "]":  # only xterm's own commands end by it
            return end + 1, None
        if ends == "\x1b" and end + 1 == len(text):  # perhaps the first half of its end
            self._rest = "\x1b"
            return len(text), None
        whole = String(self._string, self._content)
        self._string = None
        if ends == "\x1b":
            if text[end + 1] == "\\":
                return end + 2, whole
            return end, None  # given up for another sequence
        return end + 1, whole if ends == "\x07" else None
