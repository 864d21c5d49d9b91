"""A program all of whose system calls are told to us, and answered as we say (seccomp_unotify(2)).

No ptrace and no strace is needed, threads and children are included, and arguments are seen as the
kernel has them. This records and tries; it is no wall: a call that we let go on reads its memory
once more.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from corral_guest.seccomp import ALLOW

from ...errors import CommandNotFoundError, HostError
from ...proc import Helpers, Process
from . import launcher
from .algebra import Call, telling
from .library import name_of
from .table import Answer, Kind

# linux/seccomp.h, linux/filter.h
_NOTIFY, _CONTINUE = 0x7FC00000, 1
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_REQUEST, _RESPONSE = "=QIIiIQ6Q", "=QqiI"
_LOAD, _JEQ, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SENDMSG = {"x86_64": 46, "aarch64": 211}
_KILL_PROCESS = 0x80000000
ARRIVAL = 20.0  # seconds until the launcher has sent the listener

Judge = Callable[[Call], Answer]


def everything(machine: str) -> bytes:
    """The filter under which each call is told, but the one that tells of the listener."""
    steps = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_JEQ, 0, 3, _SENDMSG[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JEQ, 0, 1, launcher.SAY),
        (_RETURN, 0, 0, ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


class Watched:
    """The calls of a program.

    judge: what becomes of each. calls: each once, with the arguments that tell. refused: by name,
    with the answer and how often.
    """

    def __init__(self, listener: int, judge: Judge) -> None:
        self._listener = listener
        self._judge = judge
        self._started = False
        self._loop = asyncio.get_running_loop()
        self.calls: dict[Call, Answer] = {}
        self.refused: dict[str, tuple[Answer, int]] = {}
        self._loop.add_reader(listener, self._told)

    def _told(self) -> None:
        request = bytearray(struct.calcsize(_REQUEST))
        try:
            fcntl.ioctl(self._listener, _RECEIVE, request)
        except OSError:
            # Who made the call is gone, or everybody is: then there is nothing to hear any more.
            if _is_over(self._listener):
                self.close()
            return
        number, pid, _flags, call, _arch, _place, *arguments = struct.unpack(_REQUEST, request)
        if not self._started:  # until the program is executed, calls are the launcher's
            self._started = name_of(call) in ("execve", "execveat")
            self._answer(number, Answer(Kind.ALLOW))
            if not self._started:
                return
            self.calls[Call("execve", ())] = Answer(Kind.ALLOW)
            return
        made = Call(name_of(call), tuple(arguments))
        given = self._judge(made)
        if len(self.calls) < _MOST:
            self.calls.setdefault(Call(made.name, telling(made)), given)
        if not given.allows:
            self.refused[made.name] = (given, self.refused.get(made.name, (given, 0))[1] + 1)
        self._answer(number, given)
        if given.kind not in (Kind.ALLOW, Kind.LOG, Kind.ERRNO):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _answer(self, number: int, given: Answer) -> None:
        flags = _CONTINUE if given.allows else 0
        error = 0 if given.allows else -(given.errno or 1)
        with contextlib.suppress(OSError):  # it was killed meanwhile
            fcntl.ioctl(self._listener, _SEND, struct.pack(_RESPONSE, number, 0, error, flags))

    def close(self) -> None:
        """Hear no more; calls that are made then fail."""
        if self._listener >= 0:
            self._loop.remove_reader(self._listener)
            os.close(self._listener)
            self._listener = -1


_MOST = 10_000  # different calls; a program could go on for ever


def _is_over(listener: int) -> bool:
    import select

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return any(events & select.POLLHUP for _fd, events in poll.poll(0))


@contextlib.asynccontextmanager
async def watched(
    helpers: Helpers,
    argv: Sequence[str],
    streams: Mapping[int, int],
    environment: Mapping[str, str],
    judge: Judge,
) -> AsyncIterator[tuple[Process, Watched]]:
    """Run a program, told of its calls. streams: its descriptors 0 to 2.

    Raises CommandNotFoundError, HostError where the kernel does not tell.
    """
    path = _program(argv[0], environment.get("PATH", os.defpath))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        with theirs:
            os.write(program, everything(os.uname().machine))
            os.lseek(program, 0, os.SEEK_SET)
            fds = {**streams, launcher.SOCKET_FD: theirs.fileno(), launcher.FILTER_FD: program}
            start = (
                sys.executable,
                "-I",
                "-S",
                str(Path(launcher.__file__)),
                path,
            )
            process = await helpers.spawn(
                "the command", (*start, *argv), fds=fds, environment=environment
            )
        listener = await _listener(ours)
    finally:
        ours.close()
        os.close(program)
    calls = Watched(listener, judge)
    try:
        yield process, calls
    finally:
        calls.close()


def _program(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise CommandNotFoundError(
            f"{name}: command not found.", hint="It is looked for on this machine, by your PATH."
        )
    return str(Path(found).absolute())


async def _listener(end: socket.socket) -> int:
    end.setblocking(False)
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(end.fileno(), ready.set)
    try:
        await asyncio.wait_for(ready.wait(), ARRIVAL)
        data, ancillary, _flags, _address = end.recvmsg(
            1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except TimeoutError:
        data, ancillary = b"", []
    finally:
        loop.remove_reader(end.fileno())
    for _level, _kind, payload in ancillary if data else ():
        (fd,) = array.array("i", payload)
        return int(fd)
    raise HostError(
        "this kernel does not tell of system calls (SECCOMP_RET_USER_NOTIF).",
        hint="Linux 5.5 or later does, and not below another listener, as in some containers. "
        "Record on another machine, or write the profile from what strace shows.",
    )
