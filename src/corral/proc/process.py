"""Helper processes: the one place that starts and ends them.

    async with Helpers.start(...) as helpers:
        qemu = await helpers.spawn("qemu", argv, fds={10: ram_fd})
        ...

Every helper is a child of one warden (see `warden`), which the kernel makes the owner of their
lives: whatever ends this process, they end. Each helper's output goes to a bounded log.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from ..errors import HostError, ProcessError
from . import bwrap, warden

LOG_BYTES = 256 * 1024
_START_TIMEOUT = 20.0
_LAUNCHER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class Log:
    """The last LOG_BYTES out of a descriptor; reading never stops, so no writer blocks."""

    def __init__(self, echo: int | None = None) -> None:
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._fd = -1
        self._echo = echo
        self.ended = asyncio.Event()

    def attach(self, fd: int) -> None:
        """Read from fd, which becomes ours, until its end."""
        os.set_blocking(fd, False)
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._read)

    def drain(self) -> None:
        """Read what is there now."""
        while self._fd >= 0 and self._read():
            pass

    def _read(self) -> bool:
        """Take what one read gives; False when there is nothing now or no more."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        if self._echo is not None:
            with contextlib.suppress(OSError):
                os.write(self._echo, data)
        self._chunks.append(data)
        self._size += len(data)
        while self._size > LOG_BYTES and len(self._chunks) > 1:
            self._size -= len(self._chunks.popleft())
        return True

    def tail(self, lines: int = 12) -> str:
        """The last lines as text, control characters made harmless."""
        text = b"".join(self._chunks).decode("utf-8", "replace").replace("\r\n", "\n")
        shown = "".join(
            c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
        )
        return "\n".join(line.rstrip() for line in shown.splitlines()[-lines:])

    def content(self) -> bytes:
        """All that is kept."""
        return b"".join(self._chunks)

    def close(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.ended.set()


class Process:
    """One helper. `exited` resolves to its status (negative: the signal that ended it)."""

    def __init__(self, helpers: Helpers, name: str, number: int) -> None:
        self._helpers = helpers
        self._number = number
        self.name = name
        self.log = Log()
        self.pid = 0  # as the warden's PID namespace counts
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """Send a signal; to one that has ended, nothing."""
        if not self.exited.done():
            self._helpers.send({"op": "signal", "id": self._number, "signal": number})

    async def end(self, grace: float = 2.0) -> int | None:
        """TERM, wait for `grace` seconds, KILL, wait; returns the status.

        None: it is still there after a bounded wait; the warden's end takes it along.
        """
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            self.signal(number)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self.exited), patience)
        return None

    def explain(self) -> str:
        """One sentence on how it ended."""
        if not self.exited.done():
            return f"{self.name} is running"
        status = self.exited.result()
        if status >= 0:
            return f"{self.name} ended with status {status}"
        return f"{self.name} was ended by {signal.Signals(-status).name}"


class Helpers:
    """The helper processes of one sandbox, and their warden."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self._pid = pid
        self._processes: dict[int, Process] = {}
        self._started: dict[int, asyncio.Future[int]] = {}
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = Log()
        self._next = 1

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, bwrap_argv: tuple[str, ...], *, root: bool, run_folder: Path | None
    ) -> AsyncIterator[Helpers]:
        """Start the warden; on leaving, end every helper and wait until all are gone.

        bwrap_argv: how bubblewrap is run. run_folder: removed by the warden when it ends.
        """
        helpers = cls._launch(bwrap_argv, root, run_folder)
        try:
            await helpers._wait_up()
            yield helpers
        finally:
            await helpers._finish()

    @classmethod
    def _launch(cls, bwrap_argv: tuple[str, ...], root: bool, run_folder: Path | None) -> Helpers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, warden.MAX_MESSAGE)
        parent = os.pidfd_open(os.getpid())
        complaints, complain = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-I", "-S", "-E", str(Path(warden.__file__))]
        if run_folder is not None:
            command.append(str(run_folder))
        argv = bwrap.warden(bwrap_argv, tuple(command), root=root)
        targets = {1: complain, 2: complain, 3: theirs.fileno(), 4: parent}
        # Out of the way first, so that no descriptor is overwritten before it is copied.
        high = {target: _above(fd) for target, fd in targets.items()}
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                _LAUNCHER_ENVIRONMENT,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in high.items()],
                setsid=True,
                setsigmask=[],
            )
        finally:
            for fd in (parent, complain, *high.values()):
                os.close(fd)
            theirs.close()
        helpers = cls(ours, pid)
        helpers._log.attach(complaints)
        asyncio.get_running_loop().add_reader(ours.fileno(), helpers._receive)
        return helpers

    async def _wait_up(self) -> None:
        done, _pending = await asyncio.wait(
            (self._up, self._gone),
            timeout=_START_TIMEOUT,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._up not in done:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._log.ended.wait(), 1)
            raise HostError(
                "cannot make the namespaces that hold corral's helper processes.",
                hint="Run `corral doctor`: it says what this host forbids.",
                detail=self._log.tail() or None,
            )

    async def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start argv[0] (an absolute path) with an environment built from nothing.

        fds: number in the new process -> our descriptor, copied; 1 and 2 are its log unless given.
        Raises ProcessError when it cannot be executed.
        """
        number, self._next = self._next, self._next + 1
        process = Process(self, name, number)
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        process.log.attach(log_read)
        passed = {1: log_write, 2: log_write, **(fds or {})}
        started = self._started[number] = asyncio.get_running_loop().create_future()
        self._processes[number] = process
        try:
            self.send(
                {
                    "op": "spawn",
                    "id": number,
                    "argv": list(argv),
                    "env": dict(environment or _LAUNCHER_ENVIRONMENT),
                    "fds": list(passed),
                },
                list(passed.values()),
            )
        finally:
            os.close(log_write)
        await asyncio.wait((started, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            raise ProcessError(f"{name} was not started: the warden is gone.")
        try:
            process.pid = started.result()
        except OSError as error:
            raise ProcessError(f"{name} was not started: {argv[0]}: {error.strerror}.") from error
        return process

    def send(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        """One packet to the warden."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._control.sendmsg([json.dumps(message).encode()], rights)
        except OSError as error:
            raise ProcessError(f"the warden does not answer: {error.strerror}.") from error

    def _receive(self) -> None:
        try:
            data, _fds = warden.receive(self._control)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._lost()
            return
        message = json.loads(data)
        number, operation = message["id"], message["op"]
        if operation == "up":
            self._up.set_result(None)
        elif operation == "started":
            self._started.pop(number).set_result(message["pid"])
        elif operation == "failed":
            failure = OSError(message["errno"], os.strerror(message["errno"]))
            self._started.pop(number).set_exception(failure)
        elif operation == "exited":
            process = self._processes.pop(number)
            process.log.drain()  # its last words, for whoever is told now
            process.exited.set_result(message["status"])

    def _lost(self) -> None:
        """The warden has ended, and with it, by the kernel's hand, every helper."""
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        if not self._gone.done():
            self._gone.set_result(None)
        for process in self._processes.values():
            process.exited.set_result(-signal.SIGKILL)
        self._processes.clear()

    async def _finish(self) -> None:
        """Close the socket, which ends the warden and all helpers, and wait for that."""
        loop = asyncio.get_running_loop()
        if not self._gone.done():
            loop.remove_reader(self._control.fileno())
            self._gone.set_result(None)
        self._control.close()
        await asyncio.shield(asyncio.ensure_future(self._reap()))
        for process in self._processes.values():
            if not process.exited.done():
                process.exited.set_result(-signal.SIGKILL)
        self._processes.clear()

    async def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self._pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), 10)
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        os.waitpid(self._pid, 0)  # noqa: ASYNC222 - it has ended, so this does not wait
        self._log.close()


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
