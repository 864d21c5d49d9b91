"""PID 1 of an appliance guest: sets the machine up and serves the host over the channel.

One thread, one loop. The host is trusted, so its requests are obeyed; what jails say is not.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import termios
import time

from . import agent as agents
from . import apart, boot, carrier, linux, wire
from .agent import plain
from .commands import RPC_FAILED, Command, Commands
from .debug import Shells
from .forwarder import Forwarder
from .jails import Jails
from .loop import READ, WRITE, Loop
from .vitals import BEAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RPC_UNKNOWN_METHOD = -32601
READ_SIZE = 65536
OPEN_FILES = 1 << 15  # of this process; what agents may have of them is bounded for each
PAGE = 4096  # bytes of one buffer of a virtio port (PAGE_SIZE in drivers/char/virtio_console.c)


class Supervisor:
    """The guest's side of the channel."""

    def __init__(self, port: int, loop: Loop) -> None:
        self._port = port
        self._loop = loop
        self._channel = wire.Connection()
        self._commands = Commands(loop, self._channel)
        self._stranded: list[Commands] = []  # of hosts before this one
        self.forwarder = Forwarder(loop, self._channel)
        self.jails = Jails(loop, self)
        self.debug = Shells(loop, self.jails)
        self._children: dict[int, Command] = {}
        self._events = boot.DeviceEvents()
        self._methods = {
            "wake": self._wake,
            "clock": self._clock,
            "carrier": self._carrier,
            "setup": self._setup,
            "jail": self.jails.make,
            "agent": self._agent,
            "agents": self._report,
            "exec": self._exec,
            "signal": self._signal,
            "end": self._end,
            "resize": self._resize,
            "kill": self._kill,
            "sync": self._sync,
            "settle": self._settle,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "attach": self._attach,
            "identify": self._identify,
            "dial": self._dial,
            "debug": self.debug.listen,
        }
        loop.watch(port, READ, self._readable)

    # The carrier

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification to the host."""
        self._channel.send_message(wire.notification(method, params))

    def _readable(self, events: int) -> None:
        if not events & ~WRITE:
            return  # room to write, which `flush` uses
        try:
            data = self._read()
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            # The host is gone; it ends this machine itself, and a dead channel serves nobody.
            self._loop.stop()
            return
        for event in self._channel.receive(data):
            if isinstance(event, wire.Message):
                call = wire.parse_message(event.body)
                if isinstance(call, wire.Request):
                    self._call(call)
            elif not self.forwarder.handle(event):
                self._commands.handle(event)

    def _read(self) -> bytes:
        """What is there, but not too much of it: a virtio port gives a page at a time."""
        data = os.read(self._port, READ_SIZE)
        if len(data) < PAGE:
            return data
        pieces, size = [data], len(data)
        while len(pieces[-1]) >= PAGE and size < READ_SIZE:
            try:
                pieces.append(os.read(self._port, READ_SIZE - size))
            except (BlockingIOError, ConnectionError):  # the latter comes again, at the next read
                break
            size += len(pieces[-1])
        return b"".join(pieces)

    def flush(self) -> None:
        """Write what the carrier takes now; to be called when a turn of the loop is over."""
        channel = self._channel
        try:
            while channel.ready_output:
                channel.write_to(lambda view: os.write(self._port, view[:32768]))
                if not channel.pending_output:
                    self.jails.room()
                    self._commands.room()
                    self.forwarder.room()
        except BlockingIOError:
            self._loop.watch(self._port, READ | WRITE, self._readable)
        except ConnectionError:
            self._loop.stop()  # the host is gone, as in `_readable`
        else:
            self._loop.watch(self._port, READ, self._readable)

    def _call(self, call: wire.Request) -> None:
        method = self._methods.get(call.method)
        if method is None:
            body = wire.error(call.id, RPC_UNKNOWN_METHOD, f"no method {call.method}")
        else:
            try:
                result = method(call.id, call.params)
            except (OSError, ValueError, KeyError, TypeError, wire.StreamError) as error:
                number = error.errno if isinstance(error, OSError) else None
                text = f"{call.method}: {plain(error)}"
                body = wire.error(call.id, RPC_FAILED, text, {"errno": number})
            else:
                if result is None:
                    return  # answered later
                body = wire.response(call.id, result)
        self._channel.send_message(body)

    # Methods

    def _wake(self, request: int, params: dict[str, Any]) -> dict[str, Any]:
        """The clock, randomness of its own, the host name: asked for before anything else.

        The machine may be one of many that were restored from the same memory.
        """
        self._clock(request, params)
        linux.add_entropy(bytes.fromhex(params["seed"]))
        socket.sethostname(params["hostname"])
        return {}

    def _clock(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        time.clock_settime_ns(time.CLOCK_REALTIME, params["clock"])
        return {}

    def _carrier(self, request: int, params: dict[str, Any]) -> None:
        """Go on over vsock; this port gets the answer and is closed."""
        port = carrier.vsock(bytes.fromhex(params["secret"]))
        self._channel.send_message(wire.response(request, {}))
        self._loop.forget(self._port)
        os.set_blocking(self._port, True)
        self._channel.write_to(lambda view: os.write(self._port, view))
        os.close(self._port)
        os.set_blocking(port, False)
        self._port = port
        self._channel = wire.Connection()
        self._commands = Commands(self._loop, self._channel)
        self.forwarder = Forwarder(self._loop, self._channel)
        self._loop.watch(port, READ, self._readable)

    def _setup(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        """The toolbox."""
        agents.mount_share(self._events, params["toolbox"], agents.TOOLBOX, linux.MS_RDONLY)
        return {}

    def _agent(self, request: int, params: dict[str, Any]) -> None:
        """Give an agent's jail its tree; answered when commands can be started in it."""
        self.jails.furnish(request, params, self._events)

    def _report(self, _id: int, _params: dict[str, Any]) -> dict[str, Any]:
        """How all agents are."""
        return {"agents": self.jails.report()}

    def _dial(self, request: int, params: dict[str, Any]) -> None:
        """Connect a stream to a port of an agent's loopback; answered when it is."""
        self.forwarder.dial(request, params, self.jails.find(params["agent"]))

    def _exec(self, request: int, params: dict[str, Any]) -> None:
        agent = self.jails.find(params["agent"]) if params["agent"] else None
        command, theirs = self._commands.create(request, params, agent)
        message = {
            "op": "exec",
            "id": command.number,
            "argv": [_bytes_text(item) for item in params["argv"]],
            "env": {_bytes_text(k): _bytes_text(v) for k, v in params["env"].items()},
            "cwd": _bytes_text(params["cwd"]),
            "terminal": params["terminal"],
            "builtin": params.get("builtin", False),
        }
        if agent is not None:
            self.jails.start(self._commands, command, message, theirs)
            return
        try:
            self._spawn_outside(command, message, theirs)
        except OSError as error:
            self._commands.failed(command, {"errno": error.errno, "what": "program"})
        finally:
            for fd in theirs:
                os.close(fd)

    def _spawn_outside(self, command: Command, message: dict[str, Any], fds: list[int]) -> None:
        """As root of the guest, in no jail: for the host's own checks."""
        if message["builtin"]:
            raise OSError(errno.EINVAL, "a built-in command runs in a jail")
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
        argv = message["argv"]
        pid = os.posix_spawn(argv[0], argv, message["env"], file_actions=actions, setsid=True)
        self._children[pid] = command
        self._commands.started(command, -1)

    def _signal(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        command = self._commands.find(params["exec"])
        if command is not None and command.agent is not None:
            command.agent.request(
                {
                    "op": "signal",
                    "id": command.number,
                    "signal": params["signal"],
                    "group": params["group"],
                }
            )
        return {}

    def _end(self, request: int, params: dict[str, Any]) -> None:
        """Kill all that a command has started; answered when none of it is left.

        A command that has ended itself may have left something behind.
        """
        number, channel = params["exec"], self._channel
        found = self.owner(number)
        command = found[1] if found is not None else None

        def gone() -> None:
            channel.send_message(wire.response(request, {}))

        for agent in self.jails:
            if number in agent.groups:
                agent.groups.end(number, gone, begun=command is None or not command.request)
                return
        for pid, child in self._children.items():
            if child is command:
                os.killpg(pid, signal.SIGKILL)  # outside every jail, it is its session
        gone()

    def _resize(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        self._commands.resize(params["exec"], params["rows"], params["columns"])
        return {}

    def _kill(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        self.jails.kill(params["agent"])
        return {}

    def _sync(self, request: int, _params: dict[str, Any]) -> None:
        """Write all back; answered when it is, which takes as long as the slowest agent's does."""
        channel = self._channel
        answer = wire.response(request, {})
        apart.run(self._loop, os.sync, lambda: channel.send_message(answer))

    def _settle(self, _id: int, _params: dict[str, Any]) -> dict[str, Any]:
        """Hold little memory: this machine is about to be saved, to be restored many times."""
        boot.write("/proc/sys/vm/drop_caches", "3")
        return {}

    # Being saved, and going on: here, or as a copy with another host

    def _freeze(self, request: int, _params: dict[str, Any]) -> None:
        """Stop all agents, write back what they wrote, say so, and be silent until told to go on.

        The machine is about to be saved: both directions of the channel are empty then, so that
        a copy's host, which knows nothing of what went on, can begin anew.
        """
        self.jails.freeze()
        os.sync()
        self._channel.send_message(wire.response(request, {}))
        self._channel.hold()

    def _thaw(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        """Go on: the answer to `freeze`, whatever became of that. Meanwhile the clock stood."""
        time.clock_settime_ns(time.CLOCK_REALTIME, params["clock"])
        self._channel.release()
        self.jails.thaw()
        return {}

    def _attach(self, request: int, _params: dict[str, Any]) -> None:
        """This machine is a copy, and the host is another: nothing of the channel holds any more.

        Commands go on; nobody hears them. Connections are reset. next: the number of the host's
        first command.
        """
        self._commands.strand()
        self._stranded.append(self._commands)
        self._channel = wire.Connection()
        self._commands = Commands(self._loop, self._channel)
        self.forwarder.attach(self._channel)
        last = max(each.last for each in self._stranded)
        last = max([last, *(agent.groups.last for agent in self.jails)])
        self._channel.send_message(wire.response(request, {"next": last + 1}))

    def _identify(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        """A copy becomes a machine of its own: agents are told another host name and id."""
        for identity in params["agents"]:
            agent = self.jails.get(identity["number"])
            if agent is not None:
                agent.identify(identity)
        return {}

    def all_commands(self) -> list[Commands]:
        """This host's, those that earlier hosts have left, debug shells."""
        return [self._commands, *self._stranded, self.debug]

    def beat(self) -> None:
        """Now and then: see to what should have said something."""
        self.jails.beat()
        self.debug.beat()

    def answer(self, request: int) -> None:
        """Tell the host that what it asked for is done."""
        self._channel.send_message(wire.response(request, {}))

    def refuse(self, request: int, text: str) -> None:
        """Tell the host that what it asked for cannot be."""
        self._channel.send_message(wire.error(request, RPC_FAILED, text, {}))

    def owner(self, number: object) -> tuple[Commands, Command] | None:
        """The command of that number, and where it belongs."""
        for commands in self.all_commands():
            command = commands.find(number)
            if command is not None:
                return commands, command
        return None

    def reap(self) -> None:
        """Collect ended children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            command = self._children.pop(pid, None)
            found = self.owner(command.number) if command is not None else None
            if found is not None:
                code = os.waitstatus_to_exitcode(status)
                found[0].exited(found[1], code if code >= 0 else 128 - code)


def _bytes_text(text: str) -> str:
    """A byte string that travelled as one character a byte, as Python names files."""
    return os.fsdecode(text.encode("latin-1"))


def main() -> None:
    """Serve until the host is gone; then power off: PID 1 must not return, which is a panic."""
    try:
        serve()
    except BaseException as error:
        complain(error)
    finally:
        linux.reboot(linux.RB_POWER_OFF)


def serve() -> None:
    """Boot, find the carrier, do what the host asks for."""
    boot.mount_kernel_filesystems()
    boot.move_root()
    boot.load_modules()
    boot.start_cgroups()
    boot.widen_tables()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    agents.share_folders()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 then ignores it, Python's handler ends it
    port = carrier.serial()
    os.set_blocking(port, False)
    loop = Loop()
    supervisor = Supervisor(port, loop)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def woken(_events: int) -> None:
        os.read(wake_read, 4096)
        supervisor.reap()

    loop.watch(wake_read, READ, woken)
    loop.every(BEAT, supervisor.beat)
    supervisor.tell("ready", {"version": wire.VERSION, "kernel": os.uname().release})
    supervisor.flush()
    loop.run(supervisor.flush)


def complain(error: BaseException) -> None:
    """Say on the console, in one line, what went wrong and where: corral shows it to the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"
    os.write(1, f"corral-guest: {type(error).__name__}: {error}{where}\n".encode())
    termios.tcdrain(1)
