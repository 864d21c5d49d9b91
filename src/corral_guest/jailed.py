"""PID 1 of one agent's jail: starts the agent's commands and reports how they end.

The supervisor starts it once, inside bubblewrap; it reads requests from a socket (descriptor 3) and
starts each command with posix_spawn, so that exec fails here with its errno and a terminal is
allocated in the jail's own devpts. It holds no privilege that the agent does not have: the
supervisor believes nothing it says but exit statuses. As PID 1 of its namespace it cannot be
killed from inside, and it reaps what others leave.

Messages are one JSON object a packet; descriptors travel beside them.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios

from . import linux

CONTROL_FD = 3
MAX_REQUEST = 2 << 20  # bytes; argv and environment of one command


class Jail:
    """The running commands of this jail, by the supervisor's number for each."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}

    def handle(self) -> bool:
        """Answer one request; False when the supervisor has closed the socket."""
        data, fds = _receive(self._control)
        if not data:
            return False
        request = json.loads(data)
        number = request["id"]
        if request["op"] == "exec":
            try:
                self._start(number, request, fds)
            except OSError as error:
                self._send({"op": "failed", "id": number, "errno": error.errno or 0})
            finally:
                for fd in fds:
                    os.close(fd)
        elif request["op"] == "signal" and number in self._pids:
            self._signal(self._pids[number], request["signal"], request.get("group", False))
        return True

    @staticmethod
    def _signal(pid: int, number: int, group: bool) -> None:
        try:
            if group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            pass  # it ended a moment ago; reap() tells

    def _start(self, number: int, request: dict[str, object], fds: list[int]) -> None:
        argv = request["argv"]
        environment = request["env"]
        assert isinstance(argv, list) and isinstance(environment, dict)
        os.chdir(str(request["cwd"]))
        terminal = request.get("terminal")
        master = -1
        if terminal:
            master, slave = os.openpty()
            assert isinstance(terminal, list)
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal, 0, 0))
            # A session leader that opens a terminal gets it as its controlling terminal (tty(4)).
            actions: list[tuple[object, ...]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
            ]
        else:
            slave = -1
            actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
        try:
            pid = _spawn(argv, environment, actions)
            self._pids[number] = pid
            self._send({"op": "started", "id": number}, [master] if terminal else [])
        finally:
            for fd in (master, slave):
                if fd >= 0:
                    os.close(fd)

    def reap(self) -> None:
        """Collect every ended child, report those that are commands."""
        numbers = {pid: number for number, pid in self._pids.items()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = numbers.get(pid)
            if number is not None:
                del self._pids[number]
                code = os.waitstatus_to_exitcode(status)
                self._send(
                    {"op": "exited", "id": number, "status": code if code >= 0 else 128 - code}
                )

    def _send(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._control.sendmsg([json.dumps(message).encode()], rights)


def _spawn(argv: list[str], environment: dict[str, str], actions: list[tuple[object, ...]]) -> int:
    """Start argv in a session of its own, looked up on the *command's* PATH. Returns its pid."""
    names = [argv[0]]
    if "/" not in argv[0]:
        names = [f"{folder}/{argv[0]}" for folder in os.get_exec_path(environment)]
    failure: OSError = FileNotFoundError(2, "not found", argv[0])
    for name in names:
        try:
            return os.posix_spawn(
                name,
                argv,
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=list(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != 13:  # EACCES: remember it, a later folder may have a usable one
                raise
            failure = error
    raise failure


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _flags, _address = control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(12))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds)


def main() -> None:
    """Serve until the supervisor closes the socket; then end, and the kernel ends the jail."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    os.set_inheritable(CONTROL_FD, False)
    control = socket.socket(fileno=CONTROL_FD)
    jail = Jail(control)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(CONTROL_FD, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    control.send(b'{"op": "up"}')
    while True:
        for fd, _events in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
                jail.reap()
            elif not jail.handle():
                return
