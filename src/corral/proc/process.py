"""Helper processes: the one place that starts and ends them.

    async with Helpers.start(...) as helpers:
        qemu = await helpers.spawn("qemu", argv, fds={10: ram_fd})
        ...

Every helper is a child of one warden (see `warden`), which the kernel makes the owner of their
lives: whatever ends this process, they end. Each helper's output goes to a bounded log.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import marshal
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import HostError, ProcessError
from . import bwrap, warden
from .crash import crash_point
from .groups import Group
from .holders import end_holders
from .log import Log

_START_TIMEOUT = 20.0  # seconds until the warden is up
_END_TIMEOUT = 10.0  # seconds until it and all helpers are gone of themselves
_INLINE_MESSAGE = 64 * 1024  # bytes in a packet; what is longer travels in a file
_LAUNCHER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


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
        """Send a signal; to one that has ended, nothing. Raises ProcessError."""
        if not self.exited.done():
            self._helpers.send({"op": "signal", "id": self._number, "signal": int(number)})

    def signal_inside(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the program that this process, a bubblewrap, runs; or to its group."""
        if not self.exited.done():
            message = {"op": "signal", "id": self._number, "signal": int(number), "inside": group}
            self._helpers.send(message)

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
        if self._helpers.lost:
            return f"the warden, which holds {self.name} and all other helpers, has ended"
        return f"{self.name} {ended_how(self.exited.result())}"

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it, or it went with the warden."""
        if not self.exited.done():
            return False
        return self.exited.result() in (-signal.SIGKILL, 128 + signal.SIGKILL)

    def last_words(self) -> str | None:
        """The last lines of its log, or of the warden's if that went first."""
        return self.log.tail() or (self._helpers.log.tail() if self._helpers.lost else "") or None


def ended_how(status: int) -> str:
    """An exit status in words; bubblewrap gives 128+n for a program that signal n ended."""
    number = -status if status < 0 else status - 128
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with status {status}"


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the host for all of a warden's processes.

    prefix: a command line that starts bubblewrap, with `environment` beside the usual. group: the
    warden is moved there before it starts anything.
    """

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    group: Group | None = None


class Helpers:
    """The helper processes of one sandbox, and their warden.

    log: the warden's. lost: whether the warden ended before it was told to.
    """

    def __init__(self, control: socket.socket, pid: int, peer: int) -> None:
        self._control = control
        self._pid = pid
        self._peer = peer  # the inode of the warden's end
        self._bubblewrap = os.pidfd_open(pid)
        self._warden = -1  # its pidfd, once it is up
        self._processes: dict[int, Process] = {}
        self._logs: list[Log] = []
        # A spawn's answer: a pid, or the errno that it failed with.
        self._started: dict[int, asyncio.Future[int | OSError]] = {}
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = 1
        self.log = Log()
        self.lost = False

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        bwrap_argv: tuple[str, ...],
        *,
        root: bool,
        run_folder: Path | None,
        bounds: Bounds | None = None,
    ) -> AsyncIterator[Helpers]:
        """Start the warden; on leaving, end every helper and wait until all are gone.

        bwrap_argv: how bubblewrap is run. run_folder: removed by the warden when it ends.
        Raises HostError.
        """
        bounds = bounds or Bounds()
        with _made(bounds.group):
            helpers = cls._launch(bwrap_argv, root, run_folder, bounds)
            try:
                crash_point("warden-spawned")
                await helpers._wait_up()
                if bounds.group is not None:
                    helpers._enter(bounds.group)
                crash_point("warden-up")
                yield helpers
            finally:
                await helpers._finish()

    @classmethod
    def _launch(
        cls, bwrap_argv: tuple[str, ...], root: bool, run_folder: Path | None, bounds: Bounds
    ) -> Helpers:
        command = [sys.executable, "-I", "-S", "-E", str(Path(warden.__file__))]
        if run_folder is not None:
            command.append(str(run_folder))
        argv = (*bounds.prefix, *bwrap.warden(bwrap_argv, tuple(command), root=root))
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as failed:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            passed.callback(theirs.close)
            peer = os.fstat(theirs.fileno()).st_ino
            failed.callback(ours.close)
            parent = _closed_by(passed, os.pidfd_open(os.getpid()))
            complaints, complain = os.pipe2(os.O_CLOEXEC)
            failed.callback(os.close, complaints)
            _closed_by(passed, complain)
            targets = {1: complain, 2: complain, 3: theirs.fileno(), 4: parent}
            # Out of the way first, so that no descriptor is overwritten before it is copied.
            high = {to: _closed_by(passed, _above(fd)) for to, fd in targets.items()}
            actions: list[tuple[object, ...]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in high.items()),
            ]
            try:
                pid = os.posix_spawn(
                    argv[0],
                    argv,
                    {**_LAUNCHER_ENVIRONMENT, **bounds.environment},
                    file_actions=actions,
                    setsid=True,
                    setsigmask=[],
                )
            except OSError as error:
                raise HostError(
                    f"cannot start bubblewrap ({argv[0]}): {error.strerror}.",
                    hint="Run `corral doctor`: it says what is missing.",
                ) from error
            failed.pop_all()
        ours.setblocking(False)
        helpers = cls(ours, pid, peer)
        helpers.log.attach(complaints)
        asyncio.get_running_loop().add_reader(ours.fileno(), helpers._receive)
        return helpers

    @property
    def pid(self) -> int:
        """The process above the warden and all helpers."""
        return self._pid

    async def _wait_up(self) -> None:
        await asyncio.wait(
            (self._up, self._gone),
            timeout=_START_TIMEOUT,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._up.done():
            return
        if not self._gone.done():
            raise HostError(
                "the warden, which is to hold corral's helper processes, was not up after "
                f"{_START_TIMEOUT:g} seconds.",
                hint="Try again when this machine is less busy.",
                detail=self.log.tail() or None,
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.log.ended.wait(), 1)
        raise HostError(
            "cannot make the namespaces that hold corral's helper processes.",
            hint="Run `corral doctor`: it says what this host forbids.",
            detail=self.log.tail() or None,
        )

    def _enter(self, group: Group) -> None:
        """Move the warden, and bubblewrap above it, into a control group."""
        try:
            for pidfd in (self._bubblewrap, self._warden):
                group.add(_pid(pidfd))
        except OSError as error:
            raise _group_error(error) from error

    async def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        files: bool = False,
    ) -> Process:
        """Start argv[0] (an absolute path) with an environment built from nothing.

        files: it may open as many files as this machine lets it. fds: number in the new process ->
        our descriptor, copied; 1 and 2 are its log unless given.
        Raises ProcessError when it cannot be executed.
        """
        number, self._next = self._next, self._next + 1
        process = Process(self, name, number)
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        process.log.attach(log_read)
        self._logs.append(process.log)
        passed = {1: log_write, 2: log_write, **(fds or {})}
        started: asyncio.Future[int | OSError] = asyncio.get_running_loop().create_future()
        self._started[number] = started
        try:
            self.send(
                {
                    "op": "spawn",
                    "id": number,
                    "argv": list(argv),
                    "env": dict(environment or _LAUNCHER_ENVIRONMENT),
                    "fds": list(passed),
                    **({"files": True} if files else {}),
                },
                list(passed.values()),
            )
        finally:
            os.close(log_write)
        self._processes[number] = process
        await asyncio.wait((started, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            raise ProcessError(f"{name} was not started: the warden is gone.")
        answer = started.result()
        if isinstance(answer, OSError):
            raise ProcessError(f"{name} was not started: {argv[0]}: {answer.strerror}.") from answer
        process.pid = answer
        return process

    def send(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        """One packet to the warden. Raises ProcessError."""
        data = marshal.dumps(message)
        with contextlib.ExitStack() as stack:
            fds = list(fds or ())
            if len(data) > _INLINE_MESSAGE:  # a packet's size is limited by the system's settings
                file = _closed_by(stack, os.memfd_create("message", os.MFD_CLOEXEC))
                with open(os.dup(file), "wb") as writer:
                    writer.write(data)
                data = warden.IN_FILE
                fds = [file, *fds]
            try:
                self._control.sendmsg([data], warden.rights(fds))
            except OSError as error:
                raise ProcessError(f"the warden does not answer: {error.strerror}.") from error

    def _receive(self) -> None:
        try:
            data, fds = warden.receive(self._control)
        except BlockingIOError:
            return
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._lost()
            return
        message = marshal.loads(data)  # noqa: S302 - the warden is ours
        number, operation = message["id"], message["op"]
        if operation == "up":
            (self._warden,) = fds
            self._up.set_result(None)
        elif operation == "started":
            self._started.pop(number).set_result(message["pid"])
        elif operation == "failed":
            failure = OSError(message["errno"], os.strerror(message["errno"]))
            del self._processes[number]
            self._started.pop(number).set_result(failure)
        elif operation == "exited":
            process = self._processes.pop(number)
            process.log.drain()  # its last words, for whoever is told now
            process.exited.set_result(message["status"])

    def _lost(self) -> None:
        """The warden has ended, and with it, by the kernel's hand, every helper."""
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self.log.drain()
        if not self._gone.done():
            self._gone.set_result(None)
        self._forget_processes()

    def _forget_processes(self) -> None:
        for process in self._processes.values():
            process.exited.set_result(-signal.SIGKILL)
        self._processes.clear()

    async def _finish(self) -> None:
        """Close the socket, which ends the warden and all helpers, and wait for that."""
        crash_point("warden-ending")
        if not self._gone.done():
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._gone.set_result(None)
        self._control.close()
        await asyncio.shield(asyncio.ensure_future(self._reap()))
        crash_point("helpers-gone")

    async def _reap(self) -> None:
        """Wait for the warden, which the kernel ends last of its namespace, and for bubblewrap."""
        if self._warden >= 0:
            await _ended(self._warden)
        await _ended(self._bubblewrap)
        if self._warden < 0:  # it never came up: is there half of it?
            for pidfd in end_holders(self._peer):
                await _ended(pidfd)
        with contextlib.suppress(ChildProcessError):  # a program that uses us may wait for all
            os.waitpid(self._pid, 0)  # noqa: ASYNC222 - it has ended
        self._forget_processes()
        for log in (self.log, *self._logs):
            log.drain()
            log.close()


@contextlib.contextmanager
def _made(group: Group | None) -> Iterator[None]:
    """A control group that is there meanwhile."""
    if group is None:
        yield
        return
    try:
        group.make()
    except OSError as error:
        raise _group_error(error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the next start sweeps
            group.remove()


def _group_error(error: OSError) -> HostError:
    return HostError(
        f"the limits cannot be enforced: {error.filename}: {error.strerror}.",
        hint="Run corral in a control group of its own (`corral unit`), or leave [limits] out.",
    )


def _pid(pidfd: int) -> int:
    """The process of a pidfd, as our own PID namespace counts (proc(5), fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "Pid":
            return int(value)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), "pidfd")


async def _ended(pidfd: int) -> None:
    """Wait until the process has ended, and close; it is killed when it takes too long."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), _END_TIMEOUT)
    except TimeoutError:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _closed_by(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
