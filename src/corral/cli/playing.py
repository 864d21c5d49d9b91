"""Recordings on the user's terminal. Whatever a file holds, only drawing reaches the terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from ..errors import HostError
from ..paths import state_dir
from ..terminals.cast import Event, Header, size
from ..terminals.drawing import ENTER, LEAVE
from ..terminals.emulator import Emulator
from ..terminals.recordings import RECORDINGS, Recording, events
from ..terminals.screen import HISTORY
from . import terminal

_PIECE = HISTORY // 2  # bytes, of which each may be a line
_PICTURE_SECONDS = 0.05  # between two, where each is drawn as a whole


def folder_of(name: str) -> Path:
    """Where recordings of the sandboxes called `name` are, if there are any."""
    folder = state_dir() / "logs" / name / RECORDINGS
    if "/" in name or name.startswith("."):
        return state_dir() / "logs" / "none" / RECORDINGS
    return folder


def read(recording: Recording) -> None:
    """Print what was to be read, in order."""
    for line in text(_happened(recording)):
        click.echo(line)


def text(happened: Iterable[Header | Event]) -> Iterator[str]:
    """Lines as they left the screen, screens as programs left them, at last what is there."""
    emulator: Emulator | None = None
    full = ""  # of a program that fills the screen
    for item in happened:
        if isinstance(item, Header):
            emulator = emulator or Emulator(item.height, item.width)
            emulator.resize(item.height, item.width)
        elif emulator is not None and item.code == "o":
            data = item.data.encode("utf-8", "replace")
            for at in range(0, len(data), _PIECE):
                screen = emulator.screen
                was, full = screen.is_alternate, screen.text() if screen.is_alternate else full
                emulator.feed(data[at : at + _PIECE])
                if was and not screen.is_alternate:
                    yield from full.splitlines()
                while screen.history:
                    yield screen.history.popleft()
        elif emulator is not None and item.code == "r" and (new := size(item.data)):
            emulator.resize(*new)
    if emulator is not None:
        yield from emulator.screen.text().splitlines()


def play(
    recording: Recording, *, speed: float, idle_limit: float, sleep: Callable[[float], None]
) -> None:
    """At the user's terminal, until the end or Ctrl-C. sleep: waits so many seconds."""
    if not os.isatty(terminal.STDOUT):
        read(recording)
        return
    player = Player(terminal.size())
    with contextlib.suppress(KeyboardInterrupt):
        try:
            _out(ENTER)
            for wait, piece in player.pieces(_happened(recording), speed, idle_limit):
                sleep(wait)
                _out(piece)
        finally:
            _out(LEAVE)
    click.echo(player.last(), nl=False)


class Player:
    """What is to be written to a window of some size, and when."""

    def __init__(self, window: tuple[int, int]) -> None:
        self._window = window
        self._emulator = Emulator(*window)

    def pieces(
        self, happened: Iterable[Header | Event], speed: float, idle_limit: float
    ) -> Iterator[tuple[float, str]]:
        """(seconds to wait, what to write then)."""
        before = owed = 0.0
        for item in happened:
            if isinstance(item, Header):
                self._emulator.resize(item.height, item.width)
                before = 0.0
                continue
            owed += min(item.time - before, idle_limit) / speed
            before = item.time
            screen = self._emulator.screen
            if item.code == "r" and (new := size(item.data)):
                self._emulator.resize(*new)
            elif item.code == "o":
                clean = self._emulator.feed(item.data.encode("utf-8", "replace")).clean
                if (screen.rows, screen.columns) == self._window:
                    yield owed, clean
                    owed = 0.0
                elif owed >= _PICTURE_SECONDS:
                    yield owed, self._emulator.draw(self._window)
                    owed = 0.0
        yield owed, self._emulator.draw(self._window)

    def last(self) -> str:
        """What is to be read at the end."""
        return self._emulator.screen.text()


def _happened(recording: Recording) -> Iterator[Header | Event]:
    try:
        yield from events(recording)
    except OSError as error:
        raise HostError(f"{recording.path} cannot be read: {error.strerror}.") from error


def _out(text: str) -> None:
    terminal.out(text.encode())
