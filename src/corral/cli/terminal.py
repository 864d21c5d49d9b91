"""The user's terminal and standard streams, joined to a command in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator

from ..channel import Stream
from ..errors import StreamResetError

STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 65536


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    """Pass every key on as it is; the terminal is as before afterwards."""
    before = termios.tcgetattr(STDIN)
    try:
        tty.setraw(STDIN, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """(rows, columns) of the terminal."""
    columns, rows = os.get_terminal_size(STDOUT)
    return (rows or 24, columns or 80)


@contextlib.contextmanager
def on_resize(resize: Callable[[int, int], Awaitable[None]]) -> Iterator[None]:
    """Call `resize` with the new size whenever the window changes."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def changed() -> None:
        await resize(*size())

    def notice() -> None:
        task = loop.create_task(changed(), name="resize")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, notice)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        for task in tasks:
            task.cancel()


async def feed(stream: Stream) -> None:
    """Standard input into `stream`, to its end. Ends when the command reads no more."""
    source = _Source()
    try:
        while data := await source.read():
            await stream.write(data)
        await stream.end()
    except StreamResetError:
        pass  # the command has closed its input, as with any pipe
    finally:
        source.close()


class _Source:
    """Standard input, read without blocking the loop and without changing its flags.

    O_NONBLOCK would be set for everyone who shares the open file (fcntl(2)), the shell included.
    """

    def __init__(self) -> None:
        self._ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # epoll knows only what can block; files and /dev/null never do (epoll_ctl(2), EPERM).
        try:
            self._loop.add_reader(STDIN, self._ready.set)
            self._waits = True
        except (PermissionError, OSError):
            self._waits = False

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, also when there is no standard input at all."""
        if self._waits:
            self._ready.clear()
            await self._ready.wait()
        else:
            await asyncio.sleep(0)
        try:
            return os.read(STDIN, CHUNK)
        except OSError:
            return b""

    def close(self) -> None:
        """Stop watching."""
        if self._waits:
            self._loop.remove_reader(STDIN)


async def drain(stream: Stream, fd: int) -> None:
    """`stream` into the descriptor `fd`, at the pace of whoever reads that.

    When nobody does any more the stream is given up, and the command meets a closed pipe.
    """
    loop = asyncio.get_running_loop()
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    while data := await stream.read(CHUNK):
        try:
            if regular:
                _write_all(fd, data)
            else:
                await loop.run_in_executor(None, _write_all, fd, data)
        except BrokenPipeError:
            stream.reset("nobody reads it")
            return


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def is_interactive() -> bool:
    """Whether a person sits at both ends: standard input and output are terminals."""
    return sys.stdin is not None and os.isatty(STDIN) and os.isatty(STDOUT)
