"""A person at a terminal: types, and waits for what appears."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.corral import command, environment

CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"


class Terminal:
    """`corral ARGUMENTS` as the foreground job of a terminal of its own (a pseudo-terminal)."""

    def __init__(self, master: int, slave: int, pid: int) -> None:
        self.pid = pid
        self._master = master
        self._slave = slave  # kept open: its modes are asked for after the end
        self._seen = b""
        self._status: int | None = None

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def expect(self, pattern: str, timeout: float = 60) -> re.Match[bytes]:
        """Wait until pattern (a regular expression) appears; forget everything before its end."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern.encode(), self._seen)
            if found is not None:
                self._seen = self._seen[found.end() :]
                return found
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            assert ready, f"{pattern!r} did not appear after {timeout} s in {self._seen!r}"
            self._seen += os.read(self._master, 65536)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the kernel sends SIGWINCH to the foreground job."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list[Any]:
        """The terminal's modes, as tcgetattr(3) gives them."""
        return termios.tcgetattr(self._slave)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._slave)
        os.close(self._master)
        self._slave = self._master = -1

    def wait(self, timeout: float = 60) -> int:
        """Its exit status (negative: the signal that ended it), when it has ended."""
        deadline = time.monotonic() + timeout
        process = os.pidfd_open(self.pid)
        try:
            while True:  # somebody has to read what it says, or it could wait for ever
                watched = [process] if self._master < 0 else [process, self._master]
                ready, _, _ = select.select(watched, [], [], max(deadline - time.monotonic(), 0))
                assert ready, f"it goes on after {timeout} s; last seen: {self._seen[-2000:]!r}"
                if process in ready:
                    break
                self._seen += os.read(self._master, 65536)
        finally:
            os.close(process)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def rest(self) -> bytes:
        """What has appeared and was not expected yet."""
        while select.select([self._master], [], [], 0)[0]:
            self._seen += os.read(self._master, 65536)
        return self._seen

    def close(self) -> None:
        """End what still runs."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._master >= 0:
            self.hang_up()


@contextlib.contextmanager
def terminal(
    folder: Path,
    arguments: Sequence[str],
    *,
    rows: int = 40,
    columns: int = 132,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run `corral ARGUMENTS` in `folder` at a new terminal. variables: further ones."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    argv = command(*arguments)
    given = environment({"TERM": "xterm-256color", **(variables or {})})
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.closerange(3, max(master, slave) + 1)
            os.execve(argv[0], argv, given)
        finally:
            os._exit(127)
    person = Terminal(master, slave, pid)
    try:
        yield person
    finally:
        person.close()
