"""The process of one agent's jail that starts the agent's commands and reports how they end.

The supervisor forks it into the jail once (see jail.py); it reads requests from a socket
(descriptor 3) and starts each command with posix_spawn, so that exec fails here with its errno and
a terminal is allocated in the jail's own devpts. A built-in command is a function of files.py that
a forked child runs. It holds no privilege that the agent does not have: the supervisor believes
nothing it says but exit statuses. What commands leave behind becomes its child, and it reaps that.

Messages are one JSON object a packet; descriptors travel beside them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

CONTROL_FD = 3
HOME_FD = 4  # cgroup.procs of the control group that this process lives in
MAX_PACKET = 1 << 16  # bytes; a longer request comes in a memory file
MAX_FDS = 5  # a long request, a control group, three streams
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
               signal.SIGUSR2, signal.SIGALRM)  # fmt: skip
SCRIPT_LINE = 256  # bytes of a script's first line that Linux reads (BINPRM_BUF_SIZE)


class StartError(Exception):
    """A command did not start. what: program, interpreter or workdir."""

    def __init__(self, number: int, what: str, interpreter: str = "") -> None:
        super().__init__(number, what)
        self.reason = {"errno": number, "what": what, "interpreter": interpreter}


class Jail:
    """The running commands of this jail, by the supervisor's number for each."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}

    def handle(self) -> bool:
        """Answer one request; False when the supervisor has closed the socket."""
        request, fds = receive(self._control)
        if request is None:
            return False
        try:
            number = request["id"]
            if request["op"] == "ping":
                self._send({"op": "pong"})
            elif request["op"] == "exec":
                try:
                    self._start(number, request, fds)
                except StartError as error:
                    self._send({"op": "failed", "id": number, **error.reason})
                except OSError as error:
                    self._send({"op": "failed", "id": number, "errno": error.errno or 0})
            elif request["op"] == "signal" and number in self._pids:
                self._signal(self._pids[number], request["signal"], request.get("group", False))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    @staticmethod
    def _signal(pid: int, number: int, group: bool) -> None:
        try:
            if group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # it ended a moment ago (reap() tells), or made itself another's

    def _start(self, number: int, request: dict[str, object], fds: list[int]) -> None:
        group, *fds = fds
        argv = request["argv"]
        environment = request["env"]
        assert isinstance(argv, list) and isinstance(environment, dict)
        try:
            os.chdir(str(request["cwd"]))
        except OSError as error:
            raise StartError(error.errno or 0, "workdir") from error
        terminal = request.get("terminal")
        master = -1
        if terminal and request.get("builtin"):
            raise StartError(errno.EINVAL, "program")
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
            builtin = request.get("builtin")
            with _Within(group):
                pid = _fork(argv, fds) if builtin else _spawn(argv, environment, actions)
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


class _Within:
    """In another control group, for as long as it takes to start what shall live there.

    group: of its cgroup.procs, opened by the supervisor, who alone may do such a thing. A child is
    born where its parent is, so nothing that it starts can be anywhere else.
    """

    def __init__(self, group: int) -> None:
        self._group = group

    def __enter__(self) -> None:
        os.write(self._group, b"0")

    def __exit__(self, *_exception: object) -> None:
        os.write(HOME_FD, b"0")


def _spawn(argv: list[str], environment: dict[str, str], actions: list[tuple[object, ...]]) -> int:
    """Start argv in a session of its own, looked up on the *command's* PATH. Returns its pid.

    The search is execvp(3)'s but for one thing: a file that the kernel cannot execute is an error,
    not a script for sh. Raises StartError.
    """
    names = [argv[0]]
    if "/" not in argv[0]:
        # Not os.get_exec_path: it imports more, and here the guest's library is out of sight.
        path = environment.get("PATH") or os.defpath
        names = [f"{folder or '.'}/{argv[0]}" for folder in path.split(":")]
    failure = StartError(errno.ENOENT, "program")
    for name in names if argv[0] else ():
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
            if os.path.isfile(name):  # it is there; what it needs to be run is not
                failure = StartError(errno.ENOENT, "interpreter", _interpreter(name))
        except PermissionError as error:  # a later folder may have a usable one
            failure = StartError(error.errno or 0, "program")
        except OSError as error:
            raise StartError(error.errno or 0, "program") from error
        except ValueError as error:  # a NUL, or a variable's name that cannot be one
            raise StartError(errno.EINVAL, "program") from error
    raise failure


def _fork(argv: list[str], fds: list[int]) -> int:
    """Start a built-in command in a session of its own. Returns its pid. Raises StartError."""
    words = [os.fsencode(word) for word in argv]
    if not words or words[0] not in files.ACTIONS:
        raise StartError(errno.EINVAL, "program")
    # A signal that comes before the child has its handlers back waits, as if it came after.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _be_builtin(words, fds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _be_builtin(argv: list[bytes], fds: list[int]) -> NoReturn:
    """What a new program would find, then the function; ends this process with its status."""
    status = files.MISUSED
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        status = files.run(argv)
    finally:
        os._exit(status)


def _interpreter(path: str) -> str:
    """The program that a script's first line names; empty for what is no script."""
    try:
        with open(path, "rb") as file:
            line = file.readline(SCRIPT_LINE)
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return words[0].decode("utf-8", "replace") if words else ""


def receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The supervisor's next request, and its descriptors; None when it has closed the socket."""
    data, fds = _packet(control)
    if not data:
        return None, fds
    request = json.loads(data)
    if not request:  # a long one is in a file
        with open(fds.pop(0), "rb") as file:
            file.seek(0)
            request = json.loads(file.read())
    return request, fds


def _packet(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _flags, _address = control.recvmsg(
        MAX_PACKET, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def main() -> None:
    """Serve until the supervisor closes the socket; then end, and the kernel ends the jail."""
    os.set_inheritable(CONTROL_FD, False)
    control = socket.socket(fileno=CONTROL_FD)
    jail = Jail(control)
    # `kill -- -1` in a jail means every process that the agent has started, and not this one.
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(CONTROL_FD, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    try:
        control.send(b'{"op": "up"}')
        while True:
            for fd, _events in poll.poll():
                if fd == wake_read:
                    os.read(wake_read, 4096)
                    jail.reap()
                elif not jail.handle():
                    return
    except ConnectionError:
        return  # the supervisor has closed it with answers of ours unread
