"""The disk of a long-lived sandbox: made once, opened at each start, never looked into."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ..backends.qemu import disk
from ..backends.qemu.control import Monitor
from ..backends.qemu.render import QMP_FD
from ..errors import HostError, ProcessError, SandboxError
from ..events import Phase, Report
from ..host import Facts
from ..proc import Helpers
from ..spec import format_size

_UNFINISHED = ".new"
_MAKING_SECONDS = 120.0
_REMOVE = "Remove the sandbox (`corral rm`) and start it again: it gets a new disk."


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that is ours alone while `fd` is open. size: bytes wanted. now: bytes it has."""

    fd: int
    size: int
    now: int

    async def plug(self, monitor: Monitor) -> None:
        """Plug it into a machine, larger if more is wanted now. Raises ProcessError."""
        await monitor.plug_disk(self.fd, grow_to=self.size if self.size > self.now else None)


@contextlib.asynccontextmanager
async def opened(
    path: Path, size: int, facts: Facts, helpers: Helpers, report: Report
) -> AsyncIterator[Disk]:
    """The disk in the file `path`, made if there is none, of `size` bytes.

    One with less grows when it is plugged in. Raises SandboxError when another machine has it,
    when it is no disk of corral's, or when it has more: a file system does not shrink. HostError
    when it cannot be made or opened.
    """
    try:
        if not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one look
            report(Phase(name="disk", message=f"making a disk of {format_size(size)}"))
            await _make(path, size, facts, helpers)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise HostError(
            f"the disk {path} cannot be used: {error.strerror}.",
            hint="Free some space there, or make it yours.",
        ) from error
    try:
        yield Disk(fd, size, _checked(fd, path, size))
    finally:
        os.close(fd)


def _checked(fd: int, path: Path, size: int) -> int:
    """Lock it; its size."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # QEMU's copy of the descriptor holds it too
    except BlockingIOError as error:
        raise SandboxError(
            f"the disk {path} is in use by another machine.", hint="Stop that sandbox first."
        ) from error
    now = disk.examine(os.pread(fd, disk.HEADER_BYTES, 0))
    if now is None:
        raise SandboxError(f"{path} is no disk that corral made, or is damaged.", hint=_REMOVE)
    if now > size:
        raise SandboxError(
            f"the disk has {format_size(now)}, and {format_size(size)} are wanted: "
            "a disk can grow, not shrink.",
            hint=f"Ask for {format_size(now)} or more (--disk, or machine.disk), "
            "or remove the sandbox (`corral rm`) and its disk with it.",
        )
    return now


async def _make(path: Path, size: int, facts: Facts, helpers: Helpers) -> None:
    """Under another name first: what is there by its own name is whole."""
    unfinished = path.with_name(path.name + _UNFINISHED)  # overwritten, if a start was cut off
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.ExitStack() as stack:
        new = os.open(unfinished, flags, 0o600)
        stack.callback(os.close, new)
        raw = os.memfd_create("disk", os.MFD_CLOEXEC)
        stack.callback(os.close, raw)
        os.ftruncate(raw, size)
        try:
            async with asyncio.timeout(_MAKING_SECONDS):
                await _format(raw, facts, helpers)
                await _copy(raw, new, size, facts, helpers)
        except (ProcessError, TimeoutError) as error:
            unfinished.unlink(missing_ok=True)
            why = error.message if isinstance(error, ProcessError) else "it took too long."
            raise HostError(
                f"the disk {path} could not be made: {why}",
                hint="Free some space there, or ask for a smaller one (--disk).",
                detail=error.detail if isinstance(error, ProcessError) else None,
            ) from error
        os.fsync(new)
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def _format(raw: int, facts: Facts, helpers: Helpers) -> None:
    process = await helpers.spawn("mke2fs", disk.formatter(facts), fds={disk.RAW_FD: raw})
    if await asyncio.shield(process.exited) != 0:
        raise ProcessError(f"{process.explain()}.", detail=process.last_words())


async def _copy(raw: int, new: int, size: int, facts: Facts, helpers: Helpers) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        fds = {QMP_FD: theirs.fileno(), disk.RAW_FD: raw, disk.NEW_FD: new}
        process = await helpers.spawn("QEMU (disk)", disk.copier(facts), fds=fds)
    try:
        async with Monitor.connect(ours, process) as monitor:
            for command, arguments in disk.copying(size):
                await monitor.carry_out(command, arguments)
        await asyncio.shield(process.exited)  # it has written all before it ends
    finally:
        if not process.exited.done():
            process.signal(signal.SIGKILL)
