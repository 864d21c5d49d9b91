"""A screen drawn anew, for a terminal that shows something else so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .screen import Row, Screen

# To the plainest state that each terminal knows, before and after: modes that change what is drawn
# or what keys send, the character set, the way to write, the shape of the cursor.
MOUSE = (1000, 1002, 1003, 1004, 1005, 1006, 1015)
PLAIN = (
    "\x1b[?2026l\x1b[0m\x1b[r\x1b[4l\x1b[?5l\x1b[?7h\x1b[?1l\x1b>\x1b[?2004l\x0f\x1b(B"
    + "".join(f"\x1b[?{mode}l" for mode in MOUSE)
)
ENTER = "\x1b[?1049h" + PLAIN + "\x1b[H\x1b[2J"
LEAVE = PLAIN + "\x1b[0 q\x1b[?25h\x1b[?1049l"


def drawn(
    screen: Screen,
    modes: Iterable[int],
    *,
    cursor_style: int = 0,
    keypad: bool = False,
    size: tuple[int, int] | None = None,
) -> str:
    """All that brings a terminal there. size: its rows and columns, where it has less or more."""
    rows, columns = size or (screen.rows, screen.columns)
    fits = (rows, columns) == (screen.rows, screen.columns)
    parts = [PLAIN, "\x1b[?25l\x1b[?7l"]
    for y in range(rows):
        parts.append(f"\x1b[{y + 1};1H\x1b[0m\x1b[K")
        if y < screen.rows:
            parts += _line(screen.lines[y], min(columns, screen.columns))
    parts.append("\x1b[?7h")
    on = set(modes)
    if fits:
        if (screen.top, screen.bottom) != (0, screen.rows - 1):
            parts.append(f"\x1b[{screen.top + 1};{screen.bottom + 1}r")
        parts.append(_cursor(screen))
        parts += ["\x1b[4h"] if screen.insert else []
        parts += ["\x1b[?7l"] if not screen.wrap else []
    elif screen.y < rows and screen.x < columns:
        parts.append(f"\x1b[{screen.y + 1};{screen.x + 1}H")
    else:
        on.discard(25)  # it is where nobody sees it
    parts += ["\x1b="] if keypad else []
    parts += [f"\x1b[?{mode}h" for mode in sorted(on - {7})]
    parts.append(f"\x1b[{cursor_style} q")
    return "".join(parts)


def _line(row: Row, columns: int) -> list[str]:
    """The characters of a line and how they look, without empty cells at its end."""
    end = columns
    while end and row.chars[end - 1] == " " and not row.styles[end - 1]:
        end -= 1
    if 0 < end < len(row.chars) and row.chars[end] == "":
        end -= 1  # half of a wide one
    parts, style = [], ""
    for char, own in zip(row.chars[:end], row.styles[:end], strict=True):
        if own != style:
            parts.append(f"\x1b[0;{own}m" if own else "\x1b[0m")
            style = own
        parts.append(char)
    if style:
        parts.append("\x1b[0m")
    return parts


def _cursor(screen: Screen) -> str:
    """Where it is, and how it writes; also past the last column, where the next line is near."""
    pen = f"\x1b[0;{screen.pen.style}m" if screen.pen.style else "\x1b[0m"
    if screen.x < screen.columns:
        return f"\x1b[{screen.y + 1};{screen.x + 1}H{pen}"
    row, last = screen.lines[screen.y], screen.columns - 1
    if row.chars[last] == "":
        last -= 1
    own = f"\x1b[0;{row.styles[last]}m" if row.styles[last] else "\x1b[0m"
    return f"\x1b[{screen.y + 1};{last + 1}H{own}{row.chars[last]}{pen}"
