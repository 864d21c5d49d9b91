"""A terminal that is nobody's: it shows what a program writes, and answers what it asks.

What it gives on is written anew, from a short list of things that draw and nothing else (CLEAN).
So nothing that a program writes can ask the terminal of the user to type something, to set the
clipboard, to print, to change its title, size, fonts or colours, or to look for files. What a
program asks its terminal is answered here, the same whoever watches, if anyone does.
"""

from __future__ import annotations

import re

import msgspec

from . import sequences
from .drawing import drawn
from .screen import Screen
from .style import changed, number

# All that is given on: text, some controls, and sequences out of this list.
CLEAN = re.compile(
    r"(?:[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\x07\b\n\r\x0f]|"
    r"\x1b(?:[M>=]|\(B|\[(?:[0-9;]{0,120}[mHJKXPLM@STr]|4[hl]|[0-6] q|"
    r"\?(?:1|5|7|12|25|100[0-6]|1015|1049|2004|2026)[hl])))*"
)
MODES = frozenset((1, 5, 7, 12, 25, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004, 2026))
_AT_FIRST = frozenset((7, 25))
_ALTERNATE = (47, 1047, 1049)
_MAX_REPEAT = 1000  # of a character (REP): a line of the widest screen
_MAX_REPLIES = 1024  # bytes for what came at once; programs ask a few things
_MAX_TITLE = 100
# Marks that turn the direction of text: what is read is then not what is there.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# DEC's line drawing, as Unicode (xterm's charproc.c).
_LINES = str.maketrans(
    "`abcdefghijklmnopqrstuvwxyz{|}~",
    "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·",
)
_VERSION = b"\x1bP>|corral\x1b\\"


class Update(msgspec.Struct, frozen=True):
    """clean: what terminals are given. replies: what the program is. dropped: commands left out."""

    clean: str
    replies: bytes
    dropped: int


class Emulator:
    """The terminal of one program. title: what it calls itself, without control characters."""

    def __init__(self, rows: int, columns: int) -> None:
        self.screen = Screen(rows, columns)
        self.title = ""
        self.modes = set(_AT_FIRST)
        self.keypad = False
        self.cursor_style = 0
        self._parser = sequences.Parser()
        self._lines = [False, False]  # whether G0 and G1 are DEC's line drawing
        self._shift = 0
        self._last = ""  # the last character, to be repeated
        self._clean: list[str] = []
        self._replies = b""
        self._dropped = 0

    def feed(self, data: bytes) -> Update:
        """Deal with what the program wrote."""
        self._clean, self._replies, self._dropped = [], b"", 0
        for token in self._parser.feed(data):
            match token:
                case sequences.Text():
                    self._text(token.text)
                case sequences.Control():
                    self._control(token.code)
                case sequences.Escape():
                    self._escape(token.intermediates + token.final)
                case sequences.Csi():
                    self._csi(token)
                case sequences.String():
                    self._string(token)
        return Update("".join(self._clean), self._replies, self._dropped)

    def resize(self, rows: int, columns: int) -> None:
        """The window has another size."""
        self.screen.resize(rows, columns)

    def draw(self, size: tuple[int, int] | None = None) -> str:
        """What brings any terminal to show this one. size: of that, if it is another."""
        return drawn(
            self.screen,
            self.modes,
            cursor_style=self.cursor_style,
            keypad=self.keypad,
            size=size,
        )

    # What is given on

    def _pass(self, text: str) -> None:
        self._clean.append(text)

    def _place(self) -> None:
        """Where the cursor is now, in words that need no context."""
        self._pass(f"\x1b[{self.screen.y + 1};{min(self.screen.x, self.screen.columns - 1) + 1}H")

    def _reply(self, data: bytes) -> None:
        if len(self._replies) + len(data) <= _MAX_REPLIES:
            self._replies += data

    def _drop(self) -> None:
        self._dropped += 1

    # What comes

    def _text(self, text: str) -> None:
        if not text.isascii():
            text = _DIRECTION.sub("", text)
        if self._lines[self._shift]:
            text = text.translate(_LINES)
        if text:
            self._last = text[-1]
            self.screen.draw(text)
            self._pass(text)

    def _control(self, code: str) -> None:
        screen = self.screen
        match code:
            case "\a":
                self._pass(code)
            case "\b":
                screen.move(0, -1)
                self._place()
            case "\t":
                screen.tab(1)
                self._place()
            case "\n" | "\v" | "\f":
                screen.line_feed()
                self._pass("\n")
            case "\r":
                screen.x = 0
                self._pass(code)
            case "\x0e" | "\x0f":
                self._shift = int(code == "\x0e")
            case "\x00" | "\x18" | "\x1a" | "\x7f":
                pass  # for filling, or to end a sequence
            case _:
                self._drop()  # ENQ among them, which has terminals type what they were told

    def _escape(self, sequence: str) -> None:
        screen = self.screen
        match sequence:
            case "7":
                screen.save()
            case "8":
                screen.restore()
                self._write_so()
                self._place()
            case "D":
                screen.line_feed()
                self._pass("\n")
            case "E":
                screen.x = 0
                screen.line_feed()
                self._pass("\r\n")
            case "M":
                screen.reverse_line_feed()
                self._pass("\x1bM")
            case "H":
                screen.tabs.add(min(screen.x, screen.columns - 1))
            case "=" | ">":
                self.keypad = sequence == "="
                self._pass(f"\x1b{sequence}")
            case "(0" | "(B" | "(A" | ")0" | ")B" | ")A":
                self._lines[sequence[0] == ")"] = sequence[1] == "0"
            case _:
                self._rarer(sequence)

    def _rarer(self, sequence: str) -> None:
        match sequence:
            case "c":
                self._reset()
            case "#8":
                self.screen.fill()
                self._pass(self.draw())
            case "Z":
                self._identify()
            case "\\":
                pass  # the end of a string
            case _:
                self._drop()

    def _reset(self) -> None:
        self.screen.alternate(False)
        self.screen.reset()
        self._modes_as_at_first()
        self._pass(self.draw())

    def _modes_as_at_first(self) -> None:
        self.modes, self.keypad, self.cursor_style = set(_AT_FIRST), False, 0
        self._lines, self._shift = [False, False], 0

    def _csi(self, token: sequences.Csi) -> None:
        private = token.parameters[:1] if token.parameters[:1] in ("?", ">", "=", "<") else ""
        parameters = token.parameters[len(private) :]
        kind = private + token.intermediates + token.final
        if kind == "m":
            self.screen.pen = changed(self.screen.pen, parameters)
            self._write_so()
            return
        numbers = [number(part) for part in parameters.split(";")[:32]]
        first = numbers[0]
        if kind in _MOVES:
            self._move(kind, numbers)
        elif kind in _EDITS:
            self._edit(kind, first)
        elif kind in ("?h", "?l"):
            for mode in numbers:
                self._mode(mode, on=kind == "?h")
        elif kind in ("h", "l") and first == 4:
            self.screen.insert = kind == "h"
            self._pass(f"\x1b[4{kind}")
        else:
            self._further(kind, numbers)

    def _move(self, kind: str, numbers: list[int]) -> None:
        screen, count = self.screen, max(numbers[0], 1)
        y = screen.y - (screen.top if screen.origin else 0)
        x = min(screen.x, screen.columns - 1)
        second = max(numbers[1], 1) if len(numbers) > 1 else 1
        match kind:
            case "A" | "k":
                screen.move(-count, 0)
            case "B" | "e":
                screen.move(count, 0)
            case "C" | "a":
                screen.move(0, count)
            case "D" | "j":
                screen.move(0, -count)
            case "E":
                screen.move(count, -screen.columns)
            case "F":
                screen.move(-count, -screen.columns)
            case "G" | "`":
                screen.move_to(y, count - 1)
            case "d":
                screen.move_to(count - 1, x)
            case "H" | "f":
                screen.move_to(count - 1, second - 1)
            case "I":
                screen.tab(count)
            case "Z":
                screen.tab(-count)
        self._place()

    def _edit(self, kind: str, first: int) -> None:
        count = min(max(first, 1), 9999)
        screen = self.screen
        if kind in "JK":
            if first > 2:
                return  # 3: what has left the screen of the user's terminal is the user's
            (screen.erase_in_display if kind == "J" else screen.erase_in_line)(first)
            self._pass(f"\x1b[{first}{kind}")
            return
        edits = {
            "L": screen.insert_lines,
            "M": screen.delete_lines,
            "@": screen.insert_characters,
            "P": screen.delete_characters,
            "X": screen.erase_characters,
            "S": screen.scroll_up,
            "T": screen.scroll_down,
        }
        edits[kind](count)
        self._pass(f"\x1b[{count}{kind}")
        if kind in "LM":
            self._place()

    def _mode(self, mode: int, *, on: bool) -> None:
        screen = self.screen
        if mode in _ALTERNATE:
            screen.alternate(on)
            self._pass(self.draw())
        elif mode == 1048:
            if on:
                screen.save()
            else:
                screen.restore()
                self._write_so()
                self._place()
        elif mode == 6:
            screen.origin = on
            screen.move_to(0, 0)
            self._place()
        elif mode in MODES:
            (self.modes.add if on else self.modes.discard)(mode)
            if mode == 7:
                screen.wrap = on
            self._pass(f"\x1b[?{mode}{'h' if on else 'l'}")
        else:
            self._drop()

    def _further(self, kind: str, numbers: list[int]) -> None:
        screen, first = self.screen, numbers[0]
        match kind:
            case "r":
                bottom = numbers[1] if len(numbers) > 1 and numbers[1] else screen.rows
                if screen.set_margins(max(first, 1) - 1, bottom - 1):
                    self._pass(f"\x1b[{screen.top + 1};{screen.bottom + 1}r")
                    self._place()
            case "b":
                self._text(self._last * min(max(first, 1), _MAX_REPEAT))
            case "s":
                screen.save()
            case "u":
                self._escape("8")
            case "g":
                if first == 3:
                    screen.tabs.clear()
                elif first == 0:
                    screen.tabs.discard(screen.x)
            case "!p":
                screen.soft_reset()
                self._modes_as_at_first()
                self._pass(self.draw())
            case " q":
                if first <= 6:
                    self.cursor_style = first
                    self._pass(f"\x1b[{first} q")
            case _:
                self._asked(kind, first)

    def _write_so(self) -> None:
        style = self.screen.pen.style
        self._pass(f"\x1b[0;{style}m" if style else "\x1b[0m")

    # What is asked

    def _identify(self) -> None:
        self._reply(b"\x1b[?62;22c")  # a VT220 with colours

    def _asked(self, kind: str, first: int) -> None:
        screen = self.screen
        y = screen.y - (screen.top if screen.origin else 0)
        place = f"{y + 1};{min(screen.x, screen.columns - 1) + 1}R".encode()
        match kind, first:
            case "n", 5:
                self._reply(b"\x1b[0n")
            case "n", 6:
                self._reply(b"\x1b[" + place)
            case "?n", 6:
                self._reply(b"\x1b[?" + place)
            case "c", 0:
                self._identify()
            case ">c", 0:
                self._reply(b"\x1b[>0;0;0c")
            case ">q", 0:
                self._reply(_VERSION)
            case "t", 18:
                self._reply(f"\x1b[8;{screen.rows};{screen.columns}t".encode())
            case "?$p", _:
                known = 0 if first not in MODES else 1 if first in self.modes else 2
                self._reply(f"\x1b[?{first};{known}$y".encode())
            case _:
                self._drop()

    def _string(self, token: sequences.String) -> None:
        command, _, rest = token.content.partition(";")
        if token.introducer == "]" and command in ("0", "2"):
            shown = "".join(each for each in rest if each.isprintable())
            self.title = shown[:_MAX_TITLE]
        elif token.introducer == "P" and token.content.startswith("$q"):
            self._reply(b"\x1bP0$r\x1b\\")  # what is set is not told
        elif token.introducer == "P" and token.content.startswith("+q"):
            self._reply(b"\x1bP0+r\x1b\\")
        else:
            self._drop()


_MOVES = frozenset("ABCDEFGHIZdfaejk`")
_EDITS = frozenset("JKLM@PXST")
