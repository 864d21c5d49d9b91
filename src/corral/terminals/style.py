"""How characters look: SGR (ECMA-48 8.3.117, and xterm's colours), read and written anew."""

from __future__ import annotations

import msgspec

MAX_PARAMETERS = 32

# Code -> (what it is about, what it sets that to). Colours are apart.
_ON = {1: "1", 2: "2", 3: "3", 4: "4", 5: "5", 6: "5", 7: "7", 8: "8", 9: "9", 21: "4"}
_OFF = {22: "12", 23: "3", 24: "4", 25: "5", 27: "7", 28: "8", 29: "9"}


class Pen(msgspec.Struct, frozen=True):
    """attributes: digits of SGR's codes that are on, in order. fg, bg: codes, or empty."""

    attributes: str = ""
    fg: str = ""
    bg: str = ""

    @property
    def style(self) -> str:
        """The parameters that bring it about after a reset; empty for the default."""
        return ";".join((*self.attributes, *(code for code in (self.fg, self.bg) if code)))


def number(text: str) -> int:
    """A parameter, which may be empty; what is larger than anything real is 9999."""
    return min(int(text[:6]), 9999) if text.isascii() and text.isdigit() else 0


def changed(pen: Pen, parameters: str) -> Pen:
    """The pen after `CSI parameters m`. What is not known changes nothing."""
    items = parameters.split(";", MAX_PARAMETERS)[:MAX_PARAMETERS]
    at = 0
    while at < len(items):
        code, *more = items[at].split(":")
        at += 1
        value = number(code)
        if value in (38, 48, 58) and not more:
            more, at = _following(items, at)
        pen = _one(pen, value, more)
    return pen


def _one(pen: Pen, value: int, more: list[str]) -> Pen:
    """more: what belongs to the value, after colons."""
    if value == 0:
        return Pen()
    if value in (38, 39) or 30 <= value <= 37 or 90 <= value <= 97:
        return Pen(pen.attributes, _coloured(pen.fg, value, more, 39), pen.bg)
    if value in (48, 49) or 40 <= value <= 47 or 100 <= value <= 107:
        return Pen(pen.attributes, pen.fg, _coloured(pen.bg, value, more, 49))
    on = set(pen.attributes)
    if value == 4 and more and number(more[0]) == 0:  # 4:3 and the like are kinds of it
        on -= {"4"}
    elif value in _ON:
        on.add(_ON[value])
    else:
        on -= set(_OFF.get(value, ""))
    return Pen("".join(sorted(on)), pen.fg, pen.bg)


def _coloured(before: str, value: int, more: list[str], default: int) -> str:
    if value == default:
        return ""
    return (_colour(value, more) or before) if value == default - 1 else str(value)


def _following(items: list[str], at: int) -> tuple[list[str], int]:
    """The parameters of a colour that are separated like all others, and where the next begins."""
    count = {5: 2, 2: 4}.get(number(items[at]) if at < len(items) else 0, 1)
    return items[at : at + count], at + count


def _colour(code: int, more: list[str]) -> str:
    kind = number(more[0]) if more else 0
    if kind == 5 and len(more) >= 2:
        return f"{code};5;{number(more[1]) & 255}"
    if kind == 2 and len(more) >= 4:
        return ";".join([str(code), "2", *(str(number(part) & 255) for part in more[-3:])])
    return ""
