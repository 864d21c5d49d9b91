"""An executor of built-ins without a machine: a process of this host, or a guest that lies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
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

    def reset(self, reason: str = "") -> None:
        if self._writer is not None:
            self._writer.close()


class Local:
    """Runs built-ins as processes of this host, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[asyncio.subprocess.Process] = []

    async def exec(self, argv: Sequence[str], **_options: object) -> LocalExecution:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *argv),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.started.append(process)
        return LocalExecution(process)


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
            self._process.send_signal(number)


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
