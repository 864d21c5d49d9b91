"""What `corral run` leaves of its command: its part of the agent's transcript, and a recording.

The same files, in the same bounds, as those of kept sandboxes. Nothing that goes wrong with them
keeps the command from anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..events import AgentBecame
from ..journal import Syncing
from ..paths import log_dir
from ..spec.text import printable
from ..terminals.tap import Tap
from ..terminals.transcripts import Transcripts, shortened
from . import terminal
from .attach import Executor, Running

if TYPE_CHECKING:
    from ..terminals.recorded import Recordings

SESSION = "run"  # what recordings are called
MAX_PATHS = 20
PATIENCE = 0.5  # seconds for what a flood has left to be written down


class _Command(msgspec.Struct, frozen=True):
    number: int
    agent: int
    argv: tuple[str, ...]


class Record:
    """What is written down of one sandbox, whose only agent runs one command."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._syncing = Syncing()
        self._transcripts = Transcripts(lambda: log_dir(name), self._syncing)
        self._syncer = asyncio.ensure_future(self._syncing.run())
        self._command: _Command | None = None
        self._began = 0.0
        self._seconds = 0.0
        self._tap: Tap | None = None
        self._tapping: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self.status: int | None = None  # the command's, once it is known

    def became(self, event: AgentBecame) -> None:
        """The agent is in another state."""
        self._transcripts.record(event.agent, "agent", state=event.state, reason=event.reason)

    @contextlib.contextmanager
    def of(self, executor: Executor) -> Iterator[Executor]:
        """The same, but that its command is written down. To be left when that has ended."""
        try:
            yield _Recorded(executor, self)
        finally:
            self._over()

    def begin(self, argv: Sequence[str], size: tuple[int, int] | None) -> Tap | None:
        """A command runs. What is to be told of its terminal, if it has one.

        Its number is our process's: other sandboxes of this name may run at the same time.
        """
        self._command = command = _Command(os.getpid(), 1, shortened(argv))
        self._began = time.monotonic()
        self._transcripts.started(command)
        if size is not None:
            self._tap = Tap(self._recordings, command, size, SESSION)
            self._tapping = asyncio.ensure_future(self._serve(self._tap))
        return self._tap

    def _recordings(self) -> Recordings:
        from ..terminals.recorded import Recordings
        from ..terminals.recordings import RECORDINGS

        return Recordings(
            lambda: log_dir(self._name) / RECORDINGS, self._transcripts, self._syncing
        )

    async def _serve(self, tap: Tap) -> None:
        try:
            # While the command gets going, which must not wait for it.
            await asyncio.to_thread(importlib.import_module, "corral.terminals.recorded")
            await tap.serve()
        except Exception as error:  # whatever it is: the command has nothing to do with it
            self._failure = f"{type(error).__name__}: {error}"
        finally:
            self._failure = self._failure or tap.failure
            self._ended()

    def _over(self) -> None:
        """The command runs no more, or we do not hear of it any more."""
        self._seconds = time.monotonic() - self._began
        if self._tap is None:
            self._ended()
        else:
            known = self.status is not None
            self._tap.end(f"ended with status {self.status}" if known else "the sandbox ended")

    def _ended(self) -> None:
        """After all that its terminal has shown."""
        if self._command is not None:
            self._transcripts.ended(self._command, self.status, self._seconds)

    async def close(self, obeyed: Sequence[str] = ()) -> str | None:
        """Finish, in bounded time. obeyed: files that git obeys and that are not as they were.

        Returns what went wrong, if anything did.
        """
        if self._tap is not None and self._tapping is not None:
            await asyncio.wait((self._tapping,), timeout=PATIENCE)
            self._tap.hurry()
            await asyncio.wait((self._tapping,), timeout=PATIENCE)
            self._tapping.cancel()
            await asyncio.wait((self._tapping,))
        if self._command is not None and obeyed:
            self._transcripts.record(
                self._command.agent,
                "files",
                command=self._command.number,
                obeyed=[printable(path) for path in obeyed[:MAX_PATHS]],
                truncated=len(obeyed) > MAX_PATHS,
            )
        self._transcripts.close()
        self._syncer.cancel()
        await asyncio.wait((self._syncer,))
        await asyncio.to_thread(self._syncing.close)
        return self._failure or self._transcripts.failure


class _Recorded:
    """An Executor that has a Record told of what runs there."""

    def __init__(self, executor: Executor, record: Record) -> None:
        self._executor = executor
        self._record = record

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Running:
        """Start a command."""
        execution = await self._executor.exec(
            argv, environment=environment, workdir=workdir, terminal=terminal
        )
        return _Seen(execution, self._record, self._record.begin(argv, terminal))


class _Seen:
    """A command whose status, and whose terminal, are noted."""

    def __init__(self, execution: Running, record: Record, tap: Tap | None) -> None:
        self._execution = execution
        self._record = record
        self._tap = tap
        self.stdin = execution.stdin
        self.stdout = execution.stdout if tap is None else _Tapped(execution.stdout, tap)
        self.stderr = execution.stderr

    async def wait(self) -> int:
        """Its exit status."""
        self._record.status = status = await self._execution.wait()
        return status

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send it, or its group, a signal."""
        await self._execution.signal(number, group=group)

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""
        if self._tap is not None:
            self._tap.resized(rows, columns)
        await self._execution.resize(rows, columns)


class _Tapped:
    """A stream of a terminal, and somebody who has a look at it."""

    def __init__(self, source: terminal.Source, tap: Tap) -> None:
        self._source = source
        self._tap = tap

    async def read(self, size: int = terminal.CHUNK) -> bytes:
        """The next bytes."""
        data = await self._source.read(size)
        if data:
            self._tap.feed(data)
        return data

    def reset(self, reason: str) -> None:
        """Give it up."""
        self._source.reset(reason)
