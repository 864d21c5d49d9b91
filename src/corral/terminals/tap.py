"""A look at the terminal of a command on its way to somebody else."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .transcripts import Working

if TYPE_CHECKING:
    from .recorded import Recordings

SLICE = 4096  # bytes that an emulator gets before others have their turn
_BACKLOG = 1 << 20  # bytes that a tap may be behind
_CROWD = _BACKLOG // 8  # bytes of it, for each of which others get more time
_REST = 1 << 16  # bytes of it that are kept when there is no more time


class Tap:
    """Writes down what a terminal is given, and delays nothing.

    When it does not keep up with a flood, it leaves some of it out; the end is there. recordings:
    makes them; name: of this one. What it takes to understand a terminal is imported by `serve`.
    failure: what went wrong with the recording.
    """

    def __init__(
        self,
        recordings: Callable[[], Recordings],
        running: Working,
        size: tuple[int, int],
        name: str = "",
    ) -> None:
        self._recordings = recordings
        self._running = running
        self._name = name or f"exec-{running.number}"
        self._size = size
        self._waiting: deque[bytes | tuple[int, int]] = deque()
        self._behind = 0
        self._more = asyncio.Event()
        self._mark: str | None = None
        self.failure: str | None = None

    def feed(self, data: bytes) -> None:
        """It wrote this."""
        for at in range(0, len(data), SLICE):
            self._add(data[at : at + SLICE])

    def resized(self, rows: int, columns: int) -> None:
        """Its window has another size."""
        self._add((rows, columns))

    def end(self, mark: str) -> None:
        """No more comes."""
        self._mark = mark
        self._more.set()

    def hurry(self) -> None:
        """There is no more time: of what is still to be written down, only the end is kept."""
        self._leave_out(_REST)

    def _add(self, item: bytes | tuple[int, int]) -> None:
        self._waiting.append(item)
        self._behind += _cost(item)
        if self._behind > _BACKLOG:
            self._leave_out(_BACKLOG // 2)
        self._more.set()

    def _leave_out(self, most: int) -> None:
        """The oldest, but for the size of the window."""
        size = None
        while self._behind > most and len(self._waiting) > 1:
            item = self._waiting.popleft()
            self._behind -= _cost(item)
            size = item if isinstance(item, tuple) else size
        if size is not None:
            self._waiting.appendleft(size)
            self._behind += _cost(size)

    async def serve(self) -> None:
        """Until all is written down."""
        from .emulator import Emulator
        from .screen import bounded

        emulator = Emulator(*bounded(*self._size))
        recordings = self._recordings()
        recorded = recordings.begin(self._running, self._name, emulator)
        try:
            while self._waiting or self._mark is None:
                if not self._waiting:
                    self._more.clear()
                    await self._more.wait()
                    continue
                item = self._waiting.popleft()
                self._behind -= _cost(item)
                began = time.monotonic()
                if isinstance(item, bytes):
                    recorded.output(emulator.feed(item).clean)
                else:
                    emulator.resize(*bounded(*item))
                    recorded.resized()
                # As much time for everybody else, and more in a flood, which loses a part anyway.
                share = 1 if self._mark is not None else 1 + self._behind // _CROWD
                await asyncio.sleep((time.monotonic() - began) * share)
        finally:
            recorded.close(self._mark or "the sandbox ended")
            self.failure = recorded.failure or recordings.failure


def _cost(item: bytes | tuple[int, int]) -> int:
    """In bytes: to draw a screen of another size costs as much as a slice."""
    return len(item) if isinstance(item, bytes) else SLICE
