"""The screen of a terminal: characters in rows, a cursor, margins; what sequences do to them.

Every operation is bounded by the size of the screen, whatever its parameters. Lines that leave the
top are kept as text, up to a number of them.
"""

from __future__ import annotations

from collections import deque

from wcwidth import wcwidth

from .style import Pen

MAX_ROWS, MAX_COLUMNS = 500, 1000
HISTORY = 1000  # lines
MAX_CELL = 8  # characters of one cell: a letter and what stands above and below it


class Row:
    """One line. chars: per cell; "" is the second half of a wide character. styles: SGR codes."""

    __slots__ = ("chars", "styles")

    def __init__(self, columns: int, style: str = "") -> None:
        self.chars = [" "] * columns
        self.styles = [style] * columns

    def text(self) -> str:
        """The characters, without spaces at the end."""
        return "".join(self.chars).rstrip()

    def resize(self, columns: int) -> None:
        """Cut it, or fill it up."""
        more = columns - len(self.chars)
        if more > 0:
            self.chars += [" "] * more
            self.styles += [""] * more
        elif more < 0:
            if self.chars[columns] == "":  # its first half would stand alone
                self.chars[columns - 1] = " "
            del self.chars[columns:], self.styles[columns:]


class _Saved:
    """What DECSC keeps."""

    def __init__(self, screen: Screen) -> None:
        self.x, self.y, self.pen = screen.x, screen.y, screen.pen
        self.origin = screen.origin

    def back(self, screen: Screen) -> None:
        screen.pen, screen.origin = self.pen, self.origin
        screen.x, screen.y = min(self.x, screen.columns), min(self.y, screen.rows - 1)


class Screen:
    """x is `columns` after the last column was written: the next character goes to a new line.

    top, bottom: the rows that scroll, both included. is_alternate: programs that fill the screen
    have one of their own, beside the one where lines come one after the other.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = bounded(rows, columns)
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.is_alternate = False
        self._main: list[Row] = []
        self._main_saved: _Saved | None = None
        self.reset()

    def reset(self) -> None:
        """As it was at first, but for the lines that are gone."""
        self.lines = [Row(self.columns) for _ in range(self.rows)]
        if self.is_alternate:
            self._main = [Row(self.columns) for _ in range(self.rows)]
        self.soft_reset()
        self.x = self.y = 0
        self.tabs = set(range(8, MAX_COLUMNS, 8))

    def soft_reset(self) -> None:
        """Modes, margins and the pen; nothing that is seen (DECSTR)."""
        self.pen = Pen()
        self.insert = self.origin = False
        self.wrap = True
        self.top, self.bottom = 0, self.rows - 1
        self._saved: _Saved | None = None

    # Characters

    def draw(self, text: str) -> None:
        """Show printable text at the cursor."""
        if text.isascii():
            self._draw_narrow(text)
            return
        for char in text:
            width = wcwidth(char)
            if width == 1:
                self._draw_narrow(char)
            elif width == 2:
                self._draw_wide(char)
            elif width == 0:
                self._combine(char)

    def _draw_narrow(self, text: str) -> None:
        style, at = self.pen.style, 0
        while at < len(text):
            self._make_room(1)
            size = min(len(text) - at, self.columns - self.x)
            row = self.lines[self.y]
            if self.insert:
                self.insert_characters(size)
            self._part(row, self.x)
            self._part(row, self.x + size)
            row.chars[self.x : self.x + size] = text[at : at + size]
            row.styles[self.x : self.x + size] = [style] * size
            self.x += size
            at += size
            if not self.wrap and self.x == self.columns and at < len(text):
                at = len(text) - 1  # the others were overwritten, one by the next

    def _draw_wide(self, char: str) -> None:
        if self.columns < 2:
            return
        self._make_room(2)
        if self.insert:
            self.insert_characters(2)
        row = self.lines[self.y]
        self._part(row, self.x)
        self._part(row, self.x + 2)
        row.chars[self.x : self.x + 2] = [char, ""]
        row.styles[self.x : self.x + 2] = [self.pen.style] * 2
        self.x += 2

    def _make_room(self, width: int) -> None:
        if self.x + width <= self.columns:
            return
        if self.wrap:
            self.x = 0
            self.line_feed()
        else:
            self.x = self.columns - width

    @staticmethod
    def _part(row: Row, x: int) -> None:
        """Something else begins at x: a wide character that reaches over it is none any more."""
        if 0 < x < len(row.chars) and row.chars[x] == "":
            row.chars[x - 1] = row.chars[x] = " "

    def _combine(self, char: str) -> None:
        row, x = self.lines[self.y], self.x - 1
        if x > 0 and row.chars[x] == "":
            x -= 1
        if x >= 0 and len(row.chars[x]) < MAX_CELL:
            row.chars[x] += char

    # The cursor

    def move_to(self, y: int, x: int) -> None:
        """Rows count from the top margin in origin mode, and then end at the bottom one."""
        low, high = (self.top, self.bottom) if self.origin else (0, self.rows - 1)
        self.y = max(low, min(low + y, high))
        self.x = max(0, min(x, self.columns - 1))

    def move(self, dy: int, dx: int) -> None:
        """Up and down no further than to the margin, if the cursor is within it."""
        if dy < 0:
            self.y = max(self.y + dy, self.top if self.y >= self.top else 0)
        elif dy > 0:
            self.y = min(self.y + dy, self.bottom if self.y <= self.bottom else self.rows - 1)
        self.x = max(0, min(min(self.x, self.columns - 1) + dx, self.columns - 1))

    def line_feed(self) -> None:
        """Down one line; at the bottom margin the lines scroll instead."""
        if self.y == self.bottom:
            self.scroll_up(1)
        elif self.y < self.rows - 1:
            self.y += 1

    def reverse_line_feed(self) -> None:
        """Up one line."""
        if self.y == self.top:
            self.scroll_down(1)
        elif self.y > 0:
            self.y -= 1

    def tab(self, count: int) -> None:
        """To the next tab stop, or back to one."""
        self.x = min(self.x, self.columns - 1)
        for _ in range(min(abs(count), self.columns)):
            if count > 0:
                ahead = [stop for stop in self.tabs if self.x < stop < self.columns]
                self.x = min(ahead, default=self.columns - 1)
            else:
                self.x = max((stop for stop in self.tabs if stop < self.x), default=0)

    def save(self) -> None:
        """Remember where the cursor is and how it writes; one place, not a stack of them."""
        self._saved = _Saved(self)

    def restore(self) -> None:
        """Back to that."""
        if self._saved is None:
            self.move_to(0, 0)
        else:
            self._saved.back(self)

    # Lines

    @property
    def _blank(self) -> str:
        """What is erased has the colour of the background."""
        return self.pen.bg

    def set_margins(self, top: int, bottom: int) -> bool:
        """The lines that scroll, counted from 0; False when these cannot be."""
        bottom = min(bottom, self.rows - 1)
        if not 0 <= top < bottom:
            return False
        self.top, self.bottom = top, bottom
        self.move_to(0, 0)
        return True

    def scroll_up(self, count: int) -> None:
        """Lines between the margins go up."""
        for _ in range(min(count, self.bottom - self.top + 1)):
            gone = self.lines.pop(self.top)
            if self.top == 0 and not self.is_alternate:
                self.history.append(gone.text())
            self.lines.insert(self.bottom, Row(self.columns, self._blank))

    def scroll_down(self, count: int) -> None:
        """Lines between the margins go down."""
        self._shift(self.top, count)

    def _shift(self, at: int, count: int) -> None:
        for _ in range(min(count, self.bottom - at + 1)):
            del self.lines[self.bottom]
            self.lines.insert(at, Row(self.columns, self._blank))

    def insert_lines(self, count: int) -> None:
        """Empty lines at the cursor."""
        if self.top <= self.y <= self.bottom:
            self._shift(self.y, count)
            self.x = 0

    def delete_lines(self, count: int) -> None:
        """Lines at the cursor go."""
        if self.top <= self.y <= self.bottom:
            for _ in range(min(count, self.bottom - self.y + 1)):
                del self.lines[self.y]
                self.lines.insert(self.bottom, Row(self.columns, self._blank))
            self.x = 0

    def insert_characters(self, count: int) -> None:
        """Spaces at the cursor."""
        row, x = self.lines[self.y], min(self.x, self.columns - 1)
        count = min(count, self.columns - x)
        self._part(row, x)
        row.chars[x:x] = [" "] * count
        row.styles[x:x] = [self._blank] * count
        row.resize(self.columns)

    def delete_characters(self, count: int) -> None:
        """Characters at the cursor go."""
        row, x = self.lines[self.y], min(self.x, self.columns - 1)
        count = min(count, self.columns - x)
        self._part(row, x)
        self._part(row, x + count)
        del row.chars[x : x + count], row.styles[x : x + count]
        row.chars += [" "] * count
        row.styles += [self._blank] * count

    def erase_characters(self, count: int) -> None:
        """Characters from the cursor on become spaces."""
        x = min(self.x, self.columns - 1)
        self._erase(self.lines[self.y], x, min(x + count, self.columns))

    def _erase(self, row: Row, start: int, end: int) -> None:
        self._part(row, start)
        self._part(row, end)
        row.chars[start:end] = [" "] * (end - start)
        row.styles[start:end] = [self._blank] * (end - start)

    def erase_in_line(self, how: int) -> None:
        """0: from the cursor on; 1: up to it; 2: all."""
        x = min(self.x, self.columns - 1)
        start, end = {0: (x, self.columns), 1: (0, x + 1), 2: (0, self.columns)}.get(how, (0, 0))
        self._erase(self.lines[self.y], start, end)

    def erase_in_display(self, how: int) -> None:
        """The same with lines."""
        if how in (0, 1):
            self.erase_in_line(how)
        chosen = {0: range(self.y + 1, self.rows), 1: range(self.y), 2: range(self.rows)}
        for y in chosen.get(how, ()):
            self.lines[y] = Row(self.columns, self._blank)

    def fill(self) -> None:
        """A screen full of E (DECALN)."""
        self.top, self.bottom = 0, self.rows - 1
        for row in self.lines:
            row.chars[:] = "E" * self.columns
            row.styles[:] = [""] * self.columns
        self.move_to(0, 0)

    # As a whole

    def alternate(self, on: bool) -> None:
        """To the other screen, which is empty then, or back to the one with the lines."""
        if on == self.is_alternate:
            return
        self.is_alternate = on
        if on:
            self._main, self._main_saved = self.lines, _Saved(self)
            self.lines = [Row(self.columns) for _ in range(self.rows)]
        else:
            self.lines, self._main = self._main, []
            if self._main_saved is not None:
                self._main_saved.back(self)

    def resize(self, rows: int, columns: int) -> None:
        """Another size. Of the lines, those above leave when there is no room for all."""
        rows, columns = bounded(rows, columns)
        for lines, keep in ((self.lines, not self.is_alternate), (self._main, True)):
            self._fit(lines, rows, columns, keep=keep, cursor=lines is self.lines)
        self.rows, self.columns = rows, columns
        self.top, self.bottom = 0, rows - 1
        self.x, self.y = min(self.x, columns), min(self.y, rows - 1)

    def _fit(self, lines: list[Row], rows: int, columns: int, *, keep: bool, cursor: bool) -> None:
        if not lines:
            return
        while len(lines) > rows:
            used = self.y if cursor else len(lines) - 1
            if len(lines) - 1 > used and not lines[-1].text():
                del lines[-1]  # empty ones below the cursor first
                continue
            gone = lines.pop(0)
            if keep:
                self.history.append(gone.text())
            if cursor:
                self.y = max(self.y - 1, 0)
        for row in lines:
            row.resize(columns)
        lines += [Row(columns) for _ in range(rows - len(lines))]

    def text(self, history: int = 0) -> str:
        """What is to be read on it, a line each; before that so many lines that left it."""
        before = list(self.history)[-history:] if history > 0 else []
        lines = [*before, *(row.text() for row in self.lines)]
        while lines and not lines[-1]:
            lines.pop()
        return "".join(f"{line}\n" for line in lines)


def bounded(rows: int, columns: int) -> tuple[int, int]:
    """A size that a screen can have."""
    return max(1, min(rows, MAX_ROWS)), max(2, min(columns, MAX_COLUMNS))
