"""What terminals show is written down: as a recording, and in the agent's transcript."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..errors import CorralError
from ..journal import Syncing
from ..terminals.emulator import Emulator
from ..terminals.recordings import Recorder, new_path
from ..terminals.screen import bounded
from ..terminals.transcripts import Transcripts
from .running import Running

SLICE = 4096  # bytes that an emulator gets before others have their turn
_BACKLOG = 1 << 20  # bytes that a tap may be behind


class Recorded:
    """One terminal's. path: of the recording, None where there can be none."""

    def __init__(
        self,
        running: Running,
        name: str,
        emulator: Emulator,
        transcripts: Transcripts,
        recording: tuple[Path, Recorder] | None,
    ) -> None:
        self.path: Path | None = recording[0] if recording else None
        self._recorder: Recorder | None = recording[1] if recording else None
        self._running = running
        self._name = name
        self._emulator = emulator
        self._transcripts = transcripts

    def output(self, clean: str) -> None:
        """What terminals are given."""
        if self._recorder is not None:
            self._recorder.output(clean)
        running = self._running
        self._transcripts.output(running.agent, running.number, self._name, clean)

    def resized(self) -> None:
        """The terminal has another size."""
        if self._recorder is not None:
            screen = self._emulator.screen
            self._recorder.resized(screen.rows, screen.columns)

    def close(self, mark: str) -> None:
        """mark: how it ended."""
        self._transcripts.flush(self._running.agent)
        if self._recorder is not None:
            self._recorder.close(mark)


class Recordings:
    """Makes them. folder: of recordings; may raise CorralError."""

    def __init__(
        self, folder: Callable[[], Path], transcripts: Transcripts, syncing: Syncing
    ) -> None:
        self._folder = folder
        self._transcripts = transcripts
        self._syncing = syncing

    def begin(self, running: Running, name: str, emulator: Emulator) -> Recorded:
        """Of a terminal that begins now. A disk that is full keeps nobody from working."""
        recording, screen = None, emulator.screen
        try:
            path = new_path(self._folder(), running.agent, name)
            recorder = Recorder(
                path,
                (screen.rows, screen.columns),
                title=f"agent {running.agent}, {name}",
                command=shlex.join(running.argv),
                redraw=emulator.draw,
                syncing=self._syncing,
            )
            recording = (path, recorder)
        except (OSError, CorralError):
            pass
        return Recorded(running, name, emulator, self._transcripts, recording)


class Tap:
    """Looks at the terminal of a command on its way to a client, and delays nothing.

    When it does not keep up with a flood, it leaves some of it out.
    """

    def __init__(self, recordings: Recordings, running: Running, size: tuple[int, int]) -> None:
        self._emulator = Emulator(*bounded(*size))
        self._recorded = recordings.begin(running, f"exec-{running.number}", self._emulator)
        self._waiting: deque[bytes | tuple[int, int]] = deque()
        self._behind = 0
        self._more = asyncio.Event()
        self._mark: str | None = None

    def feed(self, data: bytes) -> None:
        """It wrote this."""
        if self._behind < _BACKLOG:
            self._waiting.append(data)
            self._behind += len(data)
            self._more.set()

    def resized(self, rows: int, columns: int) -> None:
        """Its window has another size."""
        if self._behind < _BACKLOG:
            self._waiting.append((rows, columns))
            self._behind += SLICE  # it costs as much
            self._more.set()

    def end(self, mark: str) -> None:
        """No more comes."""
        self._mark = mark
        self._more.set()

    async def serve(self) -> None:
        """Until all is written down."""
        try:
            while self._waiting or self._mark is None:
                if not self._waiting:
                    self._more.clear()
                    await self._more.wait()
                    continue
                item = self._waiting.popleft()
                if isinstance(item, tuple):
                    self._behind -= SLICE
                    self._emulator.resize(*bounded(*item))
                    self._recorded.resized()
                    continue
                self._behind -= len(item)
                for at in range(0, len(item), SLICE):
                    began = time.monotonic()
                    self._recorded.output(self._emulator.feed(item[at : at + SLICE]).clean)
                    await asyncio.sleep(time.monotonic() - began)  # as much for everybody else
        finally:
            self._recorded.close(self._mark or "the sandbox ended")
