"""What terminals show is written down: as a recording, and in the agent's transcript."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from ..errors import CorralError
from ..journal import Syncing
from .emulator import Emulator
from .recordings import Recorder, new_path
from .transcripts import Transcripts, Working


class Recorded:
    """One terminal's. path: of the recording, None where there can be none."""

    def __init__(
        self,
        running: Working,
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

    @property
    def failure(self) -> str | None:
        """What went wrong with its file last."""
        return self._recorder.failure if self._recorder is not None else None

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
        self.failure: str | None = None  # why there is none of a terminal, the last time

    def begin(self, running: Working, name: str, emulator: Emulator) -> Recorded:
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
        except (OSError, CorralError) as error:
            self.failure = str(error)
        return Recorded(running, name, emulator, self._transcripts, recording)
