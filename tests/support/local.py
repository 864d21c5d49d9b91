"""Executors without a machine: processes of this host, or a guest that lies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from corral.errors import StreamResetError

PROGRAM = """
import os, sys
from corral_guest import files
sys.exit(files.run([os.fsencode(word) for word in sys.argv[1:]]))
"""


class Output:
    """What is read of a command."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def read(self, limit: int = 65536) -> bytes:
        return await self._reader.read(limit)

    def reset(self, reason: str = "") -> None:
        # asyncio tells of a process's end once its pipes are read to theirs.
        self._drained = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        while await self._reader.read(1 << 20):
            pass


class Input:
    """What a command reads."""

    def __init__(self, writer: asyncio.StreamWriter | None) -> None:
        self._writer = writer

    async def write(self, data: bytes) -> None:
        if self._writer is not None:
            try:
                self._writer.write(data)
                await self._writer.drain()
            except ConnectionError as error:
                raise StreamResetError("closed") from error

    async def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

    def reset(self, reason: str = "") -> None:
        if self._writer is not None:
            self._writer.close()


class Local:
    """Runs commands and built-ins as processes of this host, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[asyncio.subprocess.Process] = []

    async def exec(
        self,
        argv: Sequence[str],
        *,
        builtin: bool = False,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        **_options: object,
    ) -> LocalExecution:
        process = await asyncio.create_subprocess_exec(
            *((sys.executable, "-c", PROGRAM, *argv) if builtin else argv),
            cwd=workdir or self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
            start_new_session=True,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.started.append(process)
        return LocalExecution(process)

    async def close(self) -> None:
        """Close the pipes of all that was started, while there is a loop."""
        for process in self.started:
            process._transport.close()  # type: ignore[attr-defined]  # there is no public way
        await asyncio.sleep(0)


class LocalExecution:
    """One of them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        self.stdin = Input(process.stdin)
        self.stdout = Output(process.stdout)
        self.stderr = Output(process.stderr)

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def signal(self, number: int, *, group: bool = False) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self._process.pid, number)

    async def end(self) -> None:
        await self.signal(signal.SIGKILL, group=True)
        await self.wait()

    @property
    def status(self) -> int | None:
        code = self._process.returncode
        return None if code is None else code if code >= 0 else 128 - code

    async def resize(self, rows: int, columns: int) -> None:
        pass


class Liar:
    """Answers every request with the same bytes and status."""

    def __init__(self, stdout: bytes = b"", stderr: bytes = b"", status: int = 0) -> None:
        self._answers = (stdout, stderr)
        self._status = status
        self.signals: list[int] = []

    async def exec(self, argv: Sequence[str], **_options: object) -> Liar:
        readers = []
        for answer in self._answers:
            reader = asyncio.StreamReader()
            reader.feed_data(answer)
            reader.feed_eof()
            readers.append(Output(reader))
        self.stdout, self.stderr = readers
        self.stdin = Input(None)
        return self

    async def wait(self) -> int:
        return self._status

    async def signal(self, number: int, *, group: bool = False) -> None:
        self.signals.append(number)
