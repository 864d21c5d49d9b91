"""Commands in a sandbox: run to their end, read line by line, or talked to."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ..channel import Execution, Stream
from ..errors import (
    CommandFailedError,
    CorralError,
    ExecError,
    ExecTimeoutError,
    StreamResetError,
)

OUTPUT_LIMIT = 64 << 20  # bytes of each of stdout and stderr that `exec` holds
MAX_LINE = 1 << 20  # bytes; a longer line comes in parts
GRACE = 2.0  # seconds between TERM and KILL
_SHOWN = 20  # lines of stderr in an error

StartProcess = Callable[[], Awaitable["AsyncProcess"]]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. status: its exit status, 128+n when signal n ended it.

    stdout_bytes, stderr_bytes: what it wrote; stdout and stderr are the same as text, read as UTF-8
    with stray bytes replaced. seconds: how long it ran.
    """

    status: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    seconds: float

    @property
    def stdout(self) -> str:
        """What it wrote to standard output, as text."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it wrote to standard error, as text."""
        return self.stderr_bytes.decode("utf-8", "replace")


class ProcessInput:
    """What a command reads."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, data: bytes | str) -> None:
        """Send all of it, as fast as the command reads; text as UTF-8.

        Raises StreamResetError when the command reads no more, SandboxGoneError.
        """
        await self._stream.write(data.encode() if isinstance(data, str) else data)

    async def close(self) -> None:
        """No more comes: the end of the file, which in a terminal is typed (Ctrl-D)."""
        with contextlib.suppress(StreamResetError):
            await self._stream.end()


class ProcessOutput:
    """What a command writes. Iterating gives lines, as text without their newline."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes, at least one and at most `limit`; b"" at the end."""
        return await self._stream.read(limit)

    async def read_all(self, limit: int = OUTPUT_LIMIT) -> bytes:
        """All that is still to come. ExecError when it is more than `limit` bytes."""
        content = bytearray()
        await self._collect(content, limit)
        return bytes(content)

    async def _collect(self, content: bytearray, limit: int) -> None:
        while data := await self._stream.read(1 << 18):
            content += data
            if len(content) > limit:
                raise ExecError(
                    f"the command wrote more than {limit} bytes.",
                    hint="Read it line by line (stream) or in pieces (spawn), or have it write to "
                    "a file.",
                )

    async def batches(self) -> AsyncGenerator[list[str], None]:
        """Lines, as many as come together; one of more than MAX_LINE bytes in parts."""
        rest = b""
        while data := await self._stream.read(1 << 18):
            *whole, rest = data.split(b"\n") if not rest else (rest + data).split(b"\n")
            while len(rest) > MAX_LINE:
                whole.append(rest[:MAX_LINE])
                rest = rest[MAX_LINE:]
            if whole:
                yield [
                    line[start : start + MAX_LINE].decode("utf-8", "replace")
                    for line in whole
                    for start in range(0, len(line) or 1, MAX_LINE)
                ]
        if rest:
            yield [rest.decode("utf-8", "replace")]

    async def __aiter__(self) -> AsyncIterator[str]:
        async for batch in self.batches():
            for line in batch:
                yield line


class AsyncProcess:
    """A command that runs. As a context manager it is killed on leaving, if it still runs.

    stdin, stdout, stderr: its streams; stderr is None for one with a terminal.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._status: int | None = None
        self.stdin = ProcessInput(execution.stdin)
        self.stdout = ProcessOutput(execution.stdout)
        self.stderr = ProcessOutput(execution.stderr) if execution.stderr is not None else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def status(self) -> int | None:
        """Its exit status; None while no `wait` has seen it end."""
        return self._status

    async def wait(self, timeout: float | None = None) -> int:  # noqa: ASYNC109 - as subprocess has
        """Its exit status. Its output must be read meanwhile, or it may wait for that.

        timeout: seconds, after which ExecTimeoutError is raised and it goes on. Raises
        SandboxGoneError.
        """
        try:
            async with asyncio.timeout(timeout):
                self._status = await self._execution.wait()
        except TimeoutError:
            raise _overtime(timeout, "still runs") from None
        return self._status

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal; group: its whole process group. One that has ended: nothing happens."""
        await self._execution.signal(int(number), group=group)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the new size."""
        await self._execution.resize(rows, columns)

    async def end(self, grace: float = GRACE) -> None:
        """TERM to its process group, after `grace` seconds KILL; returns when it has ended."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if self._status is None and (number == signal.SIGKILL or grace > 0):
                await self.signal(number, group=True)
                with contextlib.suppress(ExecTimeoutError):
                    await self.wait(patience)

    async def close(self) -> None:
        """End it at once if it runs, and give up its streams."""
        streams = (self._execution.stdin, self._execution.stdout, self._execution.stderr)
        for stream in streams:  # first: a command that waits for its reader could not end
            if stream is not None:
                stream.reset("not needed any more")
        if self._status is None:
            with contextlib.suppress(CorralError):
                await self.end(grace=0)


async def run(
    process: AsyncProcess,
    argv: Sequence[str],
    *,
    input: bytes,
    timeout: float | None,  # noqa: ASYNC109 - it ends the command, not only the waiting
    check: bool,
    limit: int,
) -> Result:
    """A command to its end."""
    began = time.monotonic()
    out, err = bytearray(), bytearray()

    async def feed() -> None:
        with contextlib.suppress(StreamResetError):  # it reads no more, as with any pipe
            await process.stdin.write(input)
            await process.stdin.close()

    async with process:
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                group.create_task(feed())
                group.create_task(process.stdout._collect(out, limit))
                if process.stderr is not None:
                    group.create_task(process.stderr._collect(err, limit))
                status = await process.wait()
        except TimeoutError:
            await process.end()
            raise _overtime(timeout, "was ended", bytes(out), bytes(err)) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
    if check and status:
        raise failed(argv, status, bytes(out), bytes(err))
    return Result(status, bytes(out), bytes(err), time.monotonic() - began)


class AsyncLines:
    """The lines of a command, standard output and error as they come. Iterate over it.

    status: its exit status once the iteration has ended. Whoever stops before closes it (or uses it
    as a context manager), which kills the command.
    """

    def __init__(
        self,
        start: StartProcess,
        argv: Sequence[str],
        *,
        timeout: float | None,
        check: bool,
    ) -> None:
        self._start = start
        self._argv = tuple(argv)
        self._timeout = timeout
        self._check = check
        self._deadline: float | None = None
        self._process: AsyncProcess | None = None
        self._batches: asyncio.Queue[list[str] | BaseException | None] = asyncio.Queue(1)
        self._ready: collections.deque[str] = collections.deque()
        self._readers: list[asyncio.Task[None]] = []
        self._open = 0
        self.closed = False
        self.status: int | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def __anext__(self) -> str:
        """The next line. Raises ExecTimeoutError, SandboxGoneError, CommandFailedError (check)."""
        if not self._ready:
            self._ready.extend(await self.batch())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def batch(self) -> list[str]:
        """The next lines, as many as have come together; none at the end. Raises as above."""
        if self.closed:
            return []
        try:
            if self._process is None:
                await self._begin()
            assert self._process is not None
            async with asyncio.timeout_at(self._deadline):
                lines = await self._batches.get()
                if isinstance(lines, BaseException):
                    raise lines
                if lines is None:
                    self.status = await self._process.wait()
        except TimeoutError:
            assert self._process is not None
            await self._process.end()
            await self.close()
            raise _overtime(self._timeout, "was ended") from None
        except BaseException:
            await self.close()
            raise
        if lines is not None:
            return lines
        await self.close()
        if self._check and self.status:
            raise failed(self._argv, self.status, b"", b"")
        return []

    async def _begin(self) -> None:
        if self._timeout is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._process = await self._start()
        await self._process.stdin.close()
        outputs = [each for each in (self._process.stdout, self._process.stderr) if each]
        self._open = len(outputs)
        self._readers = [asyncio.create_task(self._read(each), name="lines") for each in outputs]

    async def _read(self, output: ProcessOutput) -> None:
        end: BaseException | None = None
        try:
            async for lines in output.batches():
                await self._batches.put(lines)
        except CorralError as error:
            end = error
        if self._open > 1 and end is None:
            self._open -= 1
        else:
            await self._batches.put(end)

    async def close(self) -> None:
        """End the command if it runs."""
        self.closed = True
        self._ready.clear()
        for reader in self._readers:
            reader.cancel()
        if self._process is not None:
            await self._process.close()


def failed(argv: Sequence[str], status: int, stdout: bytes, stderr: bytes) -> CommandFailedError:
    """The error for a command that was to succeed."""
    from ..channel.failures import printable

    how = f"ended with status {status}"
    if status > 128:
        with contextlib.suppress(ValueError):
            how = f"was ended by {signal.Signals(status - 128).name}"
    last = printable(stderr.decode("utf-8", "replace")[-4000:]).splitlines()[-_SHOWN:]
    return CommandFailedError(
        f"{printable(argv[0])} {how}.",
        status=status,
        stdout=stdout,
        stderr=stderr,
        detail="\n".join(last) or None,
    )


def _overtime(
    timeout: float | None, what: str, stdout: bytes = b"", stderr: bytes = b""
) -> ExecTimeoutError:
    return ExecTimeoutError(
        f"the command ran longer than {timeout:g} seconds and {what}.",
        hint="Give it more time (timeout).",
        stdout=stdout,
        stderr=stderr,
    )
