"""Recordings of the terminals of one sandbox: private files in one folder, bounded in all.

    logs/NAME/recordings/agent-2.main.20261122-084512.cast    and an older part, .cast.1

A recording holds what terminals are given (see `emulator`), so no player can be driven by it. A
file that is full becomes the older part; the next begins with the screen as it is then.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..journal import Journal, Syncing, older
from . import cast

RECORDINGS = "recordings"  # in the folder of logs
LIMIT = 8 << 20  # bytes of one file; there are two of a recording
MOST = 64  # recordings of one sandbox; the oldest go
_SHOWN = 200  # characters of a command
_NAME = re.compile(r"agent-(\d{1,4})\.([a-z0-9][a-z0-9-]{0,62})\.(\d{8}-\d{6}(?:-\d+)?)\.cast")


class Recording(msgspec.Struct, frozen=True):
    """One that is kept. began: as in its name, which sorts by time."""

    path: Path
    agent: int
    session: str
    began: str


class Recorder:
    """Writes one recording. redraw: what brings a terminal to what is shown now."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        title: str,
        command: str,
        redraw: Callable[[], str],
        syncing: Syncing | None = None,
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._title, self._command = title, command[:_SHOWN]
        self._redraw = redraw
        self._clock = clock
        self._began = clock()
        self._journal = Journal(path, limit=limit, first=self._first, syncing=syncing)

    @property
    def failure(self) -> str | None:
        """What went wrong last."""
        return self._journal.failure

    def _first(self) -> bytes:
        self._began = self._clock()
        rows, columns = self._size
        head = cast.header(rows, columns, time.time(), title=self._title, command=self._command)
        return head + cast.event(0, "o", self._redraw())

    def output(self, text: str) -> None:
        """What terminals are given now."""
        self._event("o", text)

    def resized(self, rows: int, columns: int) -> None:
        """Another size, and what is shown then."""
        self._size = (rows, columns)
        self._event("r", f"{columns}x{rows}")
        self._event("o", self._redraw())

    def close(self, mark: str) -> None:
        """mark: how it ended."""
        self._event("m", mark)
        self._journal.close()

    def _event(self, code: str, data: str) -> None:
        self._journal.write(cast.event(self._clock() - self._began, code, data))


def new_path(folder: Path, agent: int, session: str) -> Path:
    """A new file for another recording; the oldest ones make room. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for gone in listed(folder)[: -(MOST - 1)]:
        for path in (gone.path, older(gone.path)):
            path.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
    base = folder / f"agent-{agent}.{session}.{stamp}.cast"
    path, number = base, 1
    while True:
        try:
            path.touch(mode=0o600, exist_ok=False)  # two sandboxes of one name may be at it
        except FileExistsError:
            number += 1
            path = base.with_name(f"agent-{agent}.{session}.{stamp}-{number}.cast")
        else:
            return path


def listed(folder: Path, *, agent: int | None = None, session: str = "") -> list[Recording]:
    """Those that are kept, the oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is None or path.is_symlink():
                continue
            if agent in (None, int(name[1])) and session in ("", name[2]):
                found.append(Recording(path, int(name[1]), name[2], name[3]))
    return sorted(found, key=lambda each: (each.began, each.path.name))


def events(recording: Recording) -> Iterator[cast.Header | cast.Event]:
    """All of it, the older part first. Raises OSError."""
    for path in (older(recording.path), recording.path):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            yield from cast.read(_lines(file.readline))


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Lines; of one that is too long, pieces that do not end as lines do."""
    while line := read(cast.MAX_LINE + 2):
        yield line
