"""Debug shells: a shell of an agent's at a vsock port of this machine, without the channel.

For when the channel or its keeper hangs, and only where the user has asked for it. It listens in
the supervisor, outside every jail; the shell runs in the agent's jail, as the agent, like any other
command. The host's kernel lets every local user connect to a port of a guest, so a client's first
line has to be a secret. Bounded: connections that wait, shells, bytes in flight.

A client that left with something unread is no end of file here: vhost-device-vsock reads a reset
from it and tells the guest nothing (src/vsock_conn.rs, `recv_pkt`, "if let Ok(read_cnt)"). So no
shell is refused because there are others: the one whose client was silent for longest makes way.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time

# As in proof.py: hmac would load OpenSSL.
from _operator import _compare_digest

from . import wire
from .commands import Command, Commands
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .jails import Jails
    from .loop import Loop

PORT = 6000  # and the agent's number
SECONDS = 10.0  # for the secret
MAX_LINE = 128  # bytes of it
MAX_WAITING = 4  # connections of one agent that have not said it
MAX_SHELLS = 4  # of one agent
_BUFFER = 65536  # bytes in flight, each way
_SIZE = (24, 80)


class Shell(Command):
    """One connection, and its shell once the secret was said. number: below 0, which no command of
    the host's has; 0 before. heard: when its client came, or last said something.
    """

    __slots__ = ("connection", "heard", "listener", "said", "to_connection", "to_terminal")

    def __init__(self, listener: Listener, connection: socket.socket) -> None:
        super().__init__(0, None, 0, {})
        self.connection = connection
        self.listener = listener
        self.heard = time.monotonic()
        self.said = b""
        self.to_terminal = b""
        self.to_connection = b""


class Listener:
    """The port of one agent."""

    def __init__(self, params: dict[str, Any], sock: socket.socket) -> None:
        self.agent: int = params["agent"]
        self.secret = params["secret"].encode()
        self.argv: list[str] = params["argv"]
        self.env: dict[str, str] = params["env"]
        self.cwd: str = params["cwd"]
        self.socket = sock


class Shells(Commands):
    """All of them. To `Jails` they are commands like the host's, which hears nothing of them."""

    def __init__(self, loop: Loop, jails: Jails) -> None:
        super().__init__(loop, wire.Connection())
        self._jails = jails
        self._listeners: dict[int, Listener] = {}
        self._shells: list[Shell] = []
        self._next = -1

    def listen(self, _request: int, params: dict[str, Any]) -> dict[str, Any]:
        """Listen at an agent's port; once, whatever becomes of its jail."""
        sock = self._bound(PORT + params["agent"])
        listener = self._listeners[params["agent"]] = Listener(params, sock)
        self._loop.watch(sock.fileno(), READ, lambda _events: self._accept(listener))
        return {}

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        sock.bind((socket.VMADDR_CID_ANY, port))
        sock.listen(MAX_WAITING)
        sock.setblocking(False)
        return sock

    def beat(self) -> None:
        """Who has not said the secret in time is sent away."""
        late = time.monotonic() - SECONDS
        for shell in [each for each in self._shells if not each.number and each.heard < late]:
            self._close(shell)

    # Connections

    def _accept(self, listener: Listener) -> None:
        try:
            connection, _address = listener.socket.accept()
        except OSError:
            return
        waiting = [s for s in self._shells if s.listener is listener and not s.number]
        if len(waiting) >= MAX_WAITING:
            self._close(waiting[0])  # so that who only connects keeps nobody out for ever
        connection.setblocking(False)
        shell = Shell(listener, connection)
        self._shells.append(shell)
        self._loop.watch(connection.fileno(), READ, lambda _events: self._greeted(shell))

    def _greeted(self, shell: Shell) -> None:
        """Until the first line is complete."""
        try:
            data = shell.connection.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        shell.said += data
        line, newline, rest = shell.said.partition(b"\n")
        if not newline and data and len(line) <= MAX_LINE:
            return
        if not newline or not _compare_digest(line.rstrip(b"\r"), shell.listener.secret):
            self._close(shell)
            return
        shell.said = b""
        shell.to_terminal = rest
        self._begin(shell)

    def _begin(self, shell: Shell) -> None:
        listener = shell.listener
        running = [s for s in self._shells if s.listener is listener and s.number]
        if len(running) >= MAX_SHELLS:
            silent = min(running, key=lambda each: each.heard)
            self._say(silent, b"\r\ncorral: another debug shell takes this one's place\r\n")
            self._close(silent)
        try:
            agent = self._jails.find(listener.agent)
        except OSError as error:
            self._say(shell, f"corral: {error.strerror}\r\n".encode())
            self._close(shell)
            return
        shell.number, self._next = self._next, self._next - 1
        shell.agent, shell.request = agent, 1
        self._commands[shell.number] = shell
        message = {
            "op": "exec",
            "id": shell.number,
            "argv": listener.argv,
            "env": listener.env,
            "cwd": listener.cwd,
            "terminal": _SIZE,
            "builtin": False,
        }
        self._loop.forget(shell.connection.fileno())  # until the shell is there
        self._jails.start(self, shell, message, [])

    @staticmethod
    def _say(shell: Shell, text: bytes) -> None:
        """As far as the client takes it now."""
        try:
            shell.connection.send(text)
        except OSError:
            shell.to_connection = b""

    # As Commands

    def started(self, shell: Command, terminal: int) -> None:
        """It runs. terminal: the master of its terminal, which becomes ours."""
        assert isinstance(shell, Shell)
        shell.request = 0
        if shell not in self._shells:  # closed meanwhile: its control group is about to be killed
            os.close(terminal)
            return
        shell.terminal = terminal
        os.set_blocking(terminal, False)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *_SIZE, 0, 0))
        self._watch(shell)

    def failed(self, shell: Command, _reason: dict[str, Any]) -> None:
        """It did not start."""
        assert isinstance(shell, Shell)
        self._commands.pop(shell.number, None)
        if shell in self._shells:
            self._say(shell, b"corral: the shell did not start\r\n")
            self._close(shell)

    def exited(self, shell: Command, _status: int) -> None:
        """It ended: what it said last is still brought out, as far as the client takes it."""
        assert isinstance(shell, Shell)
        self._commands.pop(shell.number, None)
        if shell.terminal >= 0:
            self._from_terminal(shell)
        if shell in self._shells:
            self._say(shell, shell.to_connection)
            self._close(shell)

    # Bytes

    def _watch(self, shell: Shell) -> None:
        connection = shell.connection.fileno()
        room = len(shell.to_terminal) < _BUFFER
        interest = (READ if room else 0) | (WRITE if shell.to_connection else 0)
        if interest:
            self._loop.watch(connection, interest, lambda _events: self._from_connection(shell))
        else:
            self._loop.forget(connection)  # a hang-up would be told without end
        room = len(shell.to_connection) < _BUFFER
        interest = (READ if room else 0) | (WRITE if shell.to_terminal else 0)
        if interest:
            self._loop.watch(shell.terminal, interest, lambda _events: self._from_terminal(shell))
        else:
            self._loop.forget(shell.terminal)

    def _from_connection(self, shell: Shell) -> None:
        try:
            if len(shell.to_terminal) < _BUFFER:
                data = shell.connection.recv(_BUFFER)
                if not data:
                    self._close(shell)
                    return
                shell.to_terminal += data
                shell.heard = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self._close(shell)
            return
        self._move(shell)

    def _from_terminal(self, shell: Shell) -> None:
        try:
            while len(shell.to_connection) < _BUFFER:
                data = os.read(shell.terminal, 4096)
                if not data:
                    break
                shell.to_connection += data
        except BlockingIOError:
            pass
        except OSError:  # EIO: nobody has it open any more
            if not shell.to_connection:
                self._close(shell)
                return
        self._move(shell)

    def _move(self, shell: Shell) -> None:
        """Write what can be written, each way."""
        try:
            if shell.to_connection:
                sent = shell.connection.send(shell.to_connection)
                shell.to_connection = shell.to_connection[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._close(shell)
            return
        try:
            if shell.to_terminal:
                sent = os.write(shell.terminal, shell.to_terminal)
                shell.to_terminal = shell.to_terminal[sent:]
        except BlockingIOError:
            pass
        except OSError:
            shell.to_terminal = b""
        self._watch(shell)

    def _close(self, shell: Shell) -> None:
        """The connection and the terminal, and then all that the shell has started.

        It stays a command until its jail says that it has ended, or never began.
        """
        self._shells.remove(shell)
        self._loop.forget(shell.connection.fileno())
        shell.connection.close()
        if shell.terminal >= 0:
            self._loop.forget(shell.terminal)
            os.close(shell.terminal)
            shell.terminal = -1
        agent = shell.agent
        if agent is not None and shell.number in agent.groups:
            agent.groups.end(shell.number, lambda: None, begun=not shell.request)
