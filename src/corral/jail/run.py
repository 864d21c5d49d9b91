"""A command in a jail on this host. Nothing of it outlives this process: the warden owns it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from ..errors import HostError, MissingProgramError
from ..host.facts import Facts
from ..host.system import System
from ..proc import Bounds, Helpers, Process
from .model import Seccomp
from .render import host
from .resolve import Resolved
from .seccomp.filters import filters
from .seccomp.target import Target
from .starting import STARTING

_LEADER = "setsid"  # util-linux's or busybox's: bubblewrap cannot give a command its terminal


class End:
    """Our end of a pipe or terminal, read and written while the loop goes on."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

    async def read(self, size: int = 65536) -> bytes:
        """The next bytes; b"" at the end."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                if error.errno != errno.EIO:  # what a terminal says that nobody has open
                    raise
                break
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of data. Raises HostError when nobody reads it any more."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise HostError("the command has ended.")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                raise HostError("the command reads no more.") from error

    async def _ready(
        self, add: Callable[[int, Callable[[], object]], object], remove: Callable[[int], object]
    ) -> None:
        ready = asyncio.Event()
        fd = self._fd
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)

    async def end(self) -> None:
        """Nothing more will be written. At a terminal that is the key for it."""
        if self._fd >= 0 and os.isatty(self._fd):
            await self.write(b"\x04")
        else:
            self.close()

    def reset(self, _reason: str = "") -> None:
        """Give it up."""
        self.close()

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


class Running:
    """A command in a jail: its streams, its status."""

    def __init__(self, process: Process, ends: Sequence[End], terminal: int) -> None:
        self._process = process
        self._terminal = terminal  # its master, -1 for none
        self.stdin, self.stdout = ends[0], ends[1]
        self.stderr = ends[2] if len(ends) > 2 else None

    async def wait(self) -> int:
        """The exit status as a shell gives it (128+n for signal n)."""
        status = await asyncio.shield(self._process.exited)
        return 128 - status if status < 0 else status

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the command, or to its whole process group."""
        self._process.signal_inside(number, group=group)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        if self._terminal >= 0:
            _resize(self._terminal, rows, columns)


class HostJail:
    """A jail on this host in which commands are run, each in namespaces of its own."""

    def __init__(self, jail: Resolved, facts: Facts, helpers: Helpers) -> None:
        self._jail = jail
        self._facts = facts
        self._helpers = helpers
        self._ends: list[End] = []
        self._filters = programs(jail.seccomp, facts.arch)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Running:
        """Start a command. terminal: rows and columns of one of its own."""
        import msgspec.structs

        variables = tuple({**dict(self._jail.variables), **(environment or {})}.items())
        jail = msgspec.structs.replace(
            self._jail, variables=variables, cwd=workdir or self._jail.cwd
        )
        facts = self._facts
        assert facts.bwrap is not None
        rendered = host(
            jail,
            facts.bwrap.argv,
            (*_leader(jail, terminal=terminal is not None), *argv),
            self._filters,
            uid=facts.user.uid,
            gid=facts.user.gid,
            root=facts.user.uid == 0,
        )
        with contextlib.ExitStack() as theirs:
            ours, fds, master = streams(theirs, terminal)
            self._ends += ours
            for number, content in rendered.contents:
                fds[number] = _memory(theirs, content)
            process = await self._helpers.spawn("bubblewrap", rendered.argv, fds=fds)
        return Running(process, ours, master)

    def close(self) -> None:
        """Close our ends of all streams."""
        for end in self._ends:
            end.close()


def programs(wanted: Sequence[Seccomp], machine: str) -> tuple[bytes, ...]:
    """The seccomp programs of a jail on this host; of several profiles all hold."""
    release = os.uname().release.split(".")
    target = Target(machine=machine, kernel=(int(release[0]), int(release[1].split("-")[0])))
    found: dict[bytes, None] = {}
    for each in wanted:
        made = filters(each.profile, each.mode, target, STARTING)
        found |= dict.fromkeys(made.programs)
    return tuple(found)


@contextlib.asynccontextmanager
async def host_jail(jail: Resolved, facts: Facts, bounds: Bounds) -> AsyncIterator[HostJail]:
    """A jail for commands; on leaving, all that ran in it has ended. Raises HostError."""
    if facts.bwrap is None:
        raise MissingProgramError("bubblewrap is needed.", hint="Run `corral doctor --fix`.")
    if not facts.user_namespaces.ok:
        raise HostError(
            f"a jail needs user namespaces: {facts.user_namespaces.reason}",
            hint=facts.user_namespaces.hint,
        )
    root = facts.user.uid == 0
    argv = facts.bwrap.argv
    async with Helpers.start(argv, root=root, run_folder=None, bounds=bounds) as helpers:
        running = HostJail(jail, facts, helpers)
        try:
            yield running
        finally:
            running.close()


def _leader(jail: Resolved, *, terminal: bool) -> tuple[str, ...]:
    """What makes a command the leader of its own session, with its terminal."""
    if not jail.session and not terminal:
        return ()
    path = System().which(_LEADER)
    if path is None and terminal:
        raise HostError(
            "there is no setsid, which gives a command in a jail its terminal.",
            hint="Install util-linux, or run the command without a terminal (-T).",
        )
    return (path, *(("-c",) if terminal else ())) if path else ()


def streams(
    theirs: contextlib.ExitStack, terminal: tuple[int, int] | None
) -> tuple[list[End], dict[int, int], int]:
    """Pipes or a terminal: (our ends, the descriptors of a command, a terminal's master or -1)."""
    if terminal is not None:
        master, slave = os.openpty()
        theirs.callback(os.close, slave)
        _resize(master, *terminal)
        return [End(os.dup(master)), End(master)], {0: slave, 1: slave, 2: slave}, master
    ours: list[End] = []
    fds: dict[int, int] = {}
    for number in range(3):
        read, write = os.pipe2(os.O_CLOEXEC)
        own, other = (write, read) if number == 0 else (read, write)
        theirs.callback(os.close, other)
        ours.append(End(own))
        fds[number] = other
    return ours, fds, -1


def _resize(terminal: int, rows: int, columns: int) -> None:
    with contextlib.suppress(OSError):  # it is closed: the command has ended
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    fd = os.memfd_create("jail", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
