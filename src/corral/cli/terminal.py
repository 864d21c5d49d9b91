"""The user's terminal and standard streams, joined to a command in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import select
import signal
import stat
import sys
import termios
import threading
import tty
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from ..errors import CorralError, ExecError
from .output import unwritten

STDIN, STDOUT, STDERR = 0, 1, 2


class Source(Protocol):
    """What a command writes: a stream of a sandbox's, or of a jail's on this host."""

    async def read(self, size: int = ...) -> bytes:
        """The next bytes; b"" at the end."""

    def reset(self, reason: str) -> None:
        """Give it up."""


class Target(Protocol):
    """What a command reads."""

    async def write(self, data: bytes) -> None:
        """Write all of data. Raises CorralError."""

    async def end(self) -> None:
        """Nothing more will come."""


CHUNK = 65536


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    """Pass every key on as it is; the terminal is as before afterwards.

    Whoever continues us after a stop (a shell's `fg`) may have set the terminal otherwise.
    """
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(STDIN)
    loop.add_signal_handler(signal.SIGCONT, tty.setraw, STDIN, termios.TCSANOW)
    try:
        tty.setraw(STDIN, termios.TCSANOW)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        with contextlib.suppress(termios.error):  # it may be gone
            # Not after output has drained: nobody may read that any more.
            termios.tcsetattr(STDIN, termios.TCSANOW, before)


def size() -> tuple[int, int]:
    """(rows, columns) of the terminal at any of our streams; 24 x 80 without one."""
    for fd in (STDOUT, STDIN, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            return (rows or 24, columns or 80)
    return (24, 80)


@contextlib.contextmanager
def on_resize(
    known: tuple[int, int], resize: Callable[[int, int], Awaitable[None]]
) -> Iterator[None]:
    """Call `resize` with the new size whenever the window is not of the `known` size any more."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    changed.set()  # it may have changed while the command was started

    async def follow() -> None:
        told = known
        while True:
            await changed.wait()
            changed.clear()
            now = size()
            if now != told:
                told = now
                with contextlib.suppress(CorralError):  # whoever waits for the command hears of it
                    await resize(*now)

    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    task = loop.create_task(follow(), name="resize")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        task.cancel()


async def feed(stream: Target) -> None:
    """Standard input into `stream`, to its end. Ends when the command reads no more."""
    source = _Source()
    try:
        while data := await source.read():
            await stream.write(data)
        await stream.end()
    except CorralError:
        pass  # the command has closed its input, as with any pipe, or is gone altogether
    finally:
        source.close()


class _Source:
    """Standard input, read without blocking the loop and without changing its flags.

    O_NONBLOCK would be set for everyone who shares the open file (fcntl(2)), the shell included.
    """

    def __init__(self) -> None:
        self._ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._watched = False

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, also when there is no standard input at all."""
        while True:
            await self._readable()
            try:
                return os.read(STDIN, CHUNK)
            except BlockingIOError:
                continue  # another process with the same terminal or pipe was faster
            except OSError:
                return b""

    async def _readable(self) -> None:
        self._ready.clear()
        try:
            self._loop.add_reader(STDIN, self._ready.set)
        except OSError:
            # epoll knows only what can block; files and /dev/null never do (epoll_ctl(2), EPERM).
            await asyncio.sleep(0)
            return
        self._watched = True
        await self._ready.wait()
        self.close()  # while nobody reads, waiting input must not keep the loop awake

    def close(self) -> None:
        """Stop watching."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(STDIN)


class Sink:
    """A descriptor, written to at the pace of whoever reads it, while the loop goes on.

    A thread does the writing, for the reason that `_Source` gives. It is a daemon: a reader that
    stalls for ever must not keep us from ending.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._turn = asyncio.Lock()
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._started = False

    async def write(self, data: bytes) -> None:
        """Write all of data. Raises OSError. When cancelled, it may be written later."""
        async with self._turn:
            if _never_blocks(self._fd):
                write_all(self._fd, data)
                return
            if not self._started:
                self._started = True
                threading.Thread(target=self._work, daemon=True, name=f"fd-{self._fd}").start()
            done: asyncio.Future[None] = self._loop.create_future()
            self._jobs.put((data, done))
            await done

    def _work(self) -> None:
        while True:
            data, done = self._jobs.get()
            failure: OSError | None = None
            try:
                write_all(self._fd, data)
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
                self._loop.call_soon_threadsafe(_settle, done, failure)


def _settle(done: asyncio.Future[None], failure: OSError | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


async def drain(stream: Source, sink: Sink) -> None:
    """`stream` into `sink`.

    When nobody reads that any more, or its terminal is gone, the stream is given up, and the
    command meets a closed pipe. Raises ExecError when it cannot be written, on a full disk say.
    """
    while data := await stream.read(CHUNK):
        try:
            await sink.write(data)
        except OSError as error:
            stream.reset("nobody reads it")
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EIO):
                raise ExecError(
                    f"the command's output cannot be written: {error.strerror}."
                ) from error
            return


def _never_blocks(fd: int) -> bool:
    found = os.fstat(fd)
    null = os.makedev(1, 3)  # /dev/null, from the kernel's devices.txt
    return stat.S_ISREG(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == null)


def write_all(fd: int, data: bytes) -> None:
    """Write all of data, however long that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made it so
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def out(data: bytes) -> None:
    """To standard output, as it is. Raises CorralError, BrokenPipeError."""
    try:
        write_all(STDOUT, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritten(error) from error


def is_interactive() -> bool:
    """Whether a person sits at both ends: standard input and output are terminals."""
    return sys.stdin is not None and os.isatty(STDIN) and os.isatty(STDOUT)
