"""The process that owns every helper of one sandbox. Run by path, standard library only.

corral starts it once for a sandbox, inside `bwrap --unshare-pid --as-pid-1`: it is PID 1 of a PID
namespace, so when it ends, for any reason, the kernel kills every process below it. It ends when
corral does: its socket closes, or corral's pidfd says that corral is gone. Nothing in between can
be killed so that something stays.

It first cuts its mount namespace off from the host's (private propagation): bubblewrap makes its
own mounts slaves, and a mount made later on the host would otherwise appear inside a sandbox.

Messages are one dict a packet, marshalled: both ends are the same interpreter, and nothing from a
guest passes here. Descriptors travel beside them. A packet that is IN_FILE has its dict in a file,
its first descriptor.

    up      {"op": "up", "id": 0} + a pidfd of the warden
    spawn   {"op": "spawn", "id": 1, "argv": [...], "env": {...}, "fds": [10, 11]} + descriptors
            fds: the numbers that the descriptors get in the new process; 1 and 2 its output
            with "files": it may open as many files as this machine lets it
            an item of argv that starts with "pinned:" names a path without links, see Pins
    signal  {"op": "signal", "id": 1, "signal": 15}; with "inside": whether to a whole process
            group, it is for the program that bubblewrap, which that process is, runs
    started {"op": "started", "id": 1, "pid": 7} · failed {"op": "failed", "id": 1, "errno": 2}
    exited  {"op": "exited", "id": 1, "status": 0}   (negative: ended by that signal)
"""

from __future__ import annotations

import ctypes
import fcntl
import marshal
import os
import select
import stat
import struct
import sys

# Every start of a sandbox waits for these imports. The C modules are what `signal` and `socket`
# are made of; those, like json, would load some forty more, which takes longer than all the rest.
from _signal import (  # type: ignore[import-not-found]  # has no stub
    SIGCHLD,
    set_wakeup_fd,
    signal,
)
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET, socket

CONTROL_FD = 3
PARENT_FD = 4
MAX_MESSAGE = 1 << 17  # bytes
IN_FILE = b"file"
MAX_FDS = 64
_FD_BYTES = 4  # a C int
_MOST_FILES = 1 << 20  # the kernel's own limit, unless fs.nr_open says otherwise
_FIRST_HIGH_FD = 200  # above every number that a plan gives to a process

PIN = "pinned:"
_PINS = "/sys"  # always there, and none of our helpers wants the host's

# linux/openat2.h; the number is the same everywhere (kernel, scripts/syscall.tbl)
_OPENAT2, _RESOLVE_NO_LINKS = 437, 0x02 | 0x04
_AT_FDCWD = -100

# linux/mount.h, linux/prctl.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND = 2, 4, 8, 1 << 12
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def receive(control: socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, close-on-exec; an empty packet: the peer is gone."""
    fds: list[int] = []
    data, ancillary, _flags, _address = control.recvmsg(
        MAX_MESSAGE, CMSG_SPACE(MAX_FDS * _FD_BYTES), MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds += struct.unpack(f"{len(payload) // _FD_BYTES}i", payload)
    return data, fds


def rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    """The descriptors as ancillary data of a packet (unix(7))."""
    return [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []


class Libc:
    """The calls that Python lacks. Each raises OSError with the file concerned."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, source: str, target: str, kind: str | None, flags: int) -> None:
        """mount(2)."""
        names = (os.fsencode(source), os.fsencode(target), kind.encode() if kind else None)
        _check(self._libc.mount(*names, ctypes.c_ulong(flags), None), target)

    def prctl(self, option: int, value: int) -> None:
        """prctl(2) with one argument."""
        _check(self._libc.prctl(option, value, 0, 0, 0), "prctl")

    def open_without_links(self, path: str) -> int:
        """A descriptor of `path` itself; OSError (ELOOP) when any part of it is a link."""
        how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_LINKS)
        arguments = (ctypes.c_int(_AT_FDCWD), os.fsencode(path), how, ctypes.c_size_t(len(how)))
        return _check(self._libc.syscall(_OPENAT2, *arguments), path)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def isolate(libc: Libc) -> None:
    """Private mounts, a /proc of this PID namespace, and no ambient capabilities."""
    libc.mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    libc.mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


class Pins:
    """What a helper is shown, held fast before bubblewrap looks it up by name.

    Paths were checked when the sandbox was planned. Until bubblewrap binds them, somebody who can
    write to a folder in them (another sandbox on the same project) could put a link there, and the
    helper would be shown what the link names. So the warden opens each without following any link
    and binds what it opened to a place that nobody else has; bubblewrap gets that place.
    """

    def __init__(self, libc: Libc) -> None:
        self._libc = libc
        self._count = 0

    def place(self, argument: str) -> str:
        """Where to find what a "pinned:" argument names; any other argument as it is."""
        if not argument.startswith(PIN):
            return argument
        if not self._count:
            self._libc.mount("tmpfs", _PINS, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        fd = self._libc.open_without_links(argument.removeprefix(PIN))
        try:
            self._count += 1
            place = f"{_PINS}/{self._count}"
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._libc.mount(f"/proc/self/fd/{fd}", place, None, _MS_BIND | _MS_REC)
        finally:
            os.close(fd)
        return place


class Warden:
    """Children by the client's number for each."""

    def __init__(self, control: socket, pins: Pins) -> None:
        self._control = control
        self._pins = pins
        self._numbers: dict[int, int] = {}

    def handle(self) -> bool:
        """Carry out one request; False when the client is gone."""
        try:
            data, fds = receive(self._control)
        except ConnectionError:  # it went without reading all that it was told
            return False
        if not data:
            return False
        if data == IN_FILE:
            with open(fds.pop(0), "rb") as file:
                file.seek(0)
                data = file.read()
        request = marshal.loads(data)  # noqa: S302 - corral sent it
        number = request["id"]
        if request["op"] == "spawn":
            try:
                argv = [self._pins.place(argument) for argument in request["argv"]]
                start = _spawn_for_files if request.get("files") else _spawn
                pid = start(argv, request["env"], request["fds"], fds)
            except OSError as error:
                self._send({"op": "failed", "id": number, "errno": error.errno})
            else:
                self._numbers[pid] = number
                self._send({"op": "started", "id": number, "pid": pid})
        else:
            for pid, known in self._numbers.items():
                if known == number:
                    _signal(pid, request["signal"], request.get("inside"))
        return True

    def reap(self) -> None:
        """Collect ended children; what bwrap left behind is PID 1's to collect, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                self._send({"op": "exited", "id": number, "status": code})

    def announce(self) -> None:
        """Say that we are up; our pidfd tells the client, at the end, that everybody is gone."""
        pidfd = os.pidfd_open(os.getpid())
        self._send({"op": "up", "id": 0}, [pidfd])
        os.close(pidfd)

    def _send(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        try:  # noqa: SIM105 - contextlib is one of those modules
            self._control.sendmsg([marshal.dumps(message)], rights(fds or []))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client is gone; handle() meets the end of the socket next


def _signal(pid: int, number: int, inside: bool | None) -> None:
    """Send a signal to a child, or to the program inside that bubblewrap (inside: its group)."""
    if inside is None:
        os.kill(pid, number)
        return
    program = _only_child(_only_child(pid))  # bubblewrap, the first process inside, the program
    if not program:
        os.kill(pid, number)  # it has not got that far, or is over
        return
    try:
        if inside and os.getpgid(program) == program:
            os.killpg(program, number)
        else:
            os.kill(program, number)
    except ProcessLookupError:
        pass


def _only_child(pid: int) -> int:
    """The first child of a process, 0 when it has none (proc(5), task/TID/children)."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return 0
    return int(children[0]) if pid and children else 0


def _spawn(argv: list[str], env: dict[str, str], targets: list[int], fds: list[int]) -> int:
    """Start argv in a session of its own with `fds` at the numbers `targets`; returns the pid."""
    high: list[int] = []
    try:
        # Out of the way first, so that no descriptor is overwritten before it is copied.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_FD) for fd in fds]
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(high, targets, strict=True)
        ]
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=[])
    finally:
        for fd in (*fds, *high):
            os.close(fd)


def _spawn_for_files(
    argv: list[str], env: dict[str, str], targets: list[int], fds: list[int]
) -> int:
    """The same for a program that has a descriptor for each file that a guest knows of."""
    import resource  # not at the start, for which everybody waits

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= _MOST_FILES
    try:  # root may have more than it was given
        resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, hard if enough else _MOST_FILES))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return _spawn(argv, env, targets, fds)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def serve() -> None:
    """Carry out requests until corral is gone."""
    # What corral itself inherited from whoever started it is nothing for its helpers.
    os.closerange(PARENT_FD + 1, os.sysconf("SC_OPEN_MAX"))
    libc = Libc()
    isolate(libc)
    control = socket(fileno=CONTROL_FD)
    for fd in (CONTROL_FD, PARENT_FD):
        os.set_inheritable(fd, False)
    warden = Warden(control, Pins(libc))
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal(SIGCHLD, lambda _number, _frame: None)
    set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poll = select.poll()
    for fd in (CONTROL_FD, PARENT_FD, wake_read):
        poll.register(fd, select.POLLIN)
    warden.announce()
    while True:
        for fd, _events in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
                warden.reap()
            elif fd == PARENT_FD or not warden.handle():
                return


def main() -> None:
    """Serve. argv[1], if given, is the run folder, removed at the end, however that comes."""
    try:
        serve()
    finally:
        if len(sys.argv) > 1:
            import shutil  # not at the start, for which everybody waits

            shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
