"""PID 1 of an appliance guest: sets the machine up and serves the host over the channel.

One thread, one loop. The host is trusted, so its requests are obeyed; what jails say is not.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
import termios
import time

from . import agent as agents
from . import boot, carrier, flows, linux, wire
from .loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RPC_FAILED = -32000  # JSON-RPC 2.0: implementation-defined server errors
RPC_UNKNOWN_METHOD = -32601


class Exec:
    """One command: its descriptors and what is still to be said about it."""

    def __init__(self, number: int, agent: agents.Agent, request: int) -> None:
        self.number = number
        self.agent = agent
        self.request = request
        self.outflows: list[flows.Outflow] = []
        self.inflow: flows.Inflow | None = None
        self.terminal = -1
        self.status: int | None = None
        self.open_flows = 0
        self.streams: dict[str, int] = {}
        self.ours: dict[str, int] = {}  # our pipe ends until the command has started


class Supervisor:
    """The guest's side of the channel."""

    def __init__(self, port: int, loop: Loop) -> None:
        self._port = port
        self._loop = loop
        self._channel = wire.Connection()
        self._agents: dict[int, agents.Agent] = {}
        self._execs: dict[int, Exec] = {}
        self._outflows: dict[int, flows.Outflow] = {}
        self._inflows: dict[int, flows.Inflow] = {}
        self._events = boot.DeviceEvents()
        self._children: dict[int, Exec] = {}
        self._next = 1
        self._methods = {
            "setup": self._setup,
            "agent": self._agent,
            "exec": self._exec,
            "signal": self._signal,
            "resize": self._resize,
            "kill": self._kill,
            "sync": self._sync,
        }
        loop.watch(port, READ, self._readable)

    # The carrier

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification to the host."""
        self._channel.send_message(wire.notification(method, params))
        self._flush()

    def _readable(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not events & ~WRITE:
            return
        try:
            data = os.read(self._port, 65536)
        except BlockingIOError:
            return
        if not data:
            # The host is gone; it ends this machine itself, and a dead channel serves nobody.
            self._loop.stop()
            return
        for event in self._channel.receive(data):
            self._handle(event)
        self._flush()

    def _flush(self) -> None:
        channel = self._channel
        try:
            while channel.pending_output:
                channel.write_to(lambda view: os.write(self._port, view[:32768]))
        except BlockingIOError:
            self._loop.watch(self._port, READ | WRITE, self._readable)
            return
        self._loop.watch(self._port, READ, self._readable)
        for outflow in list(self._outflows.values()):
            if outflow.finishing:
                outflow.finish()
            else:
                outflow.resume()

    def _handle(self, event: wire.Event) -> None:
        if isinstance(event, wire.Data):
            inflow = self._inflows.get(event.stream)
            if inflow is not None:
                inflow.data(event.data)
        elif isinstance(event, wire.Message):
            call = wire.parse_message(event.body)
            if isinstance(call, wire.Request):
                self._call(call)
        elif isinstance(event, wire.Ended) or event.stream in self._inflows:
            inflow = self._inflows.get(event.stream)
            if inflow is not None and not isinstance(event, wire.Credit):
                inflow.end()  # a host that gave its input up has ended it, too
        else:  # credit, or the host has given a stream up
            outflow = self._outflows.get(event.stream)
            if outflow is not None and not outflow.finishing:
                outflow.resume()
            elif outflow is not None:
                outflow.finish()

    def _call(self, call: wire.Request) -> None:
        method = self._methods.get(call.method)
        if method is None:
            body = wire.error(call.id, RPC_UNKNOWN_METHOD, f"no method {call.method}")
        else:
            try:
                result = method(call.id, call.params)
            except (OSError, ValueError, KeyError, TypeError, wire.StreamError) as error:
                number = error.errno if isinstance(error, OSError) else None
                text = f"{call.method}: {_plain(error)}"
                body = wire.error(call.id, RPC_FAILED, text, {"errno": number})
            else:
                if result is None:
                    return  # answered later
                body = wire.response(call.id, result)
        self._channel.send_message(body)

    # Methods

    def _setup(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        """Clock, host name and the toolbox."""
        time.clock_settime_ns(time.CLOCK_REALTIME, params["clock"])
        socket.sethostname(params["hostname"])
        agents.mount_share(self._events, params["toolbox"], agents.TOOLBOX)
        return {}

    def _agent(self, request: int, params: dict[str, Any]) -> None:
        """Make an agent's tree and start its jail; answered when the jail is up."""
        agent = agents.Agent(params)
        agent.prepare(self._events)
        agent.start()
        self._agents[agent.number] = agent
        assert agent.socket is not None
        agent.up_request = request
        self._loop.watch(agent.socket.fileno(), READ, lambda _events: self._heard(agent))

    def _exec(self, request: int, params: dict[str, Any]) -> None:
        agent = self._agents[params["agent"]] if params["agent"] else None
        number, self._next = self._next, self._next + 1
        terminal = params["terminal"]
        theirs: list[int] = []
        work = Exec(number, agent, request)  # type: ignore[arg-type] # None: outside every jail
        work.streams = params["streams"]
        for stream in work.streams.values():
            self._channel.open(stream)  # now: the host may give one up before the command starts
        self._execs[number] = work
        if not terminal:
            for name in ("stdin", "stdout", "stderr"):
                read, write = os.pipe2(os.O_CLOEXEC)
                ours, their = (write, read) if name == "stdin" else (read, write)
                work.ours[name] = ours
                theirs.append(their)
        message = {
            "op": "exec",
            "id": number,
            "argv": [_bytes_text(item) for item in params["argv"]],
            "env": {_bytes_text(k): _bytes_text(v) for k, v in params["env"].items()},
            "cwd": _bytes_text(params["cwd"]),
            "terminal": terminal,
        }
        try:
            if agent is None:
                self._spawn_outside(work, message, theirs)
            else:
                agent.request(message, theirs)
        except OSError:
            self._forget(work)
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def _spawn_outside(self, work: Exec, message: dict[str, Any], fds: list[int]) -> None:
        """As root of the guest, in no jail: for the host's own checks."""
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
        argv = message["argv"]
        pid = os.posix_spawn(argv[0], argv, message["env"], file_actions=actions, setsid=True)
        self._children[pid] = work
        self._started(work, [])

    def _signal(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        work = self._execs.get(params["exec"])
        if work is not None and work.agent is not None:
            work.agent.request(
                {
                    "op": "signal",
                    "id": work.number,
                    "signal": params["signal"],
                    "group": params["group"],
                }
            )
        return {}

    def _resize(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        work = self._execs.get(params["exec"])
        if work is not None and work.terminal >= 0:
            size = struct.pack("HHHH", params["rows"], params["columns"], 0, 0)
            fcntl.ioctl(work.terminal, termios.TIOCSWINSZ, size)
        return {}

    def _kill(self, _id: int, params: dict[str, Any]) -> dict[str, Any]:
        self._agents[params["agent"]].kill()
        return {}

    def _sync(self, _id: int, _params: dict[str, Any]) -> dict[str, Any]:
        os.sync()
        return {}

    # Jails

    def _heard(self, agent: agents.Agent) -> None:
        reply = agent.reply()
        if reply is None:
            self._lost(agent)
            return
        message, fds = reply
        operation = message.get("op")
        work = self._execs.get(message["id"]) if type(message.get("id")) is int else None
        if operation == "up" and agent.up_request is not None:
            self._channel.send_message(wire.response(agent.up_request, {}))
            agent.up_request = None
        elif work is not None and work.agent is agent:
            self._heard_of(work, message, fds)
            fds = []
        for fd in fds:
            os.close(fd)
        self._flush()

    def _heard_of(self, work: Exec, message: dict[str, Any], fds: list[int]) -> None:
        operation = message["op"]
        if operation == "started" and work.request:
            self._started(work, fds)
            return
        for fd in fds:
            os.close(fd)
        if operation == "failed" and work.request:
            number = message.get("errno")
            number = number if type(number) is int and 0 < number < 4096 else 0
            body = wire.error(work.request, RPC_FAILED, os.strerror(number), {"errno": number})
            self._channel.send_message(body)
            self._forget(work)
        elif operation == "exited" and not work.request:
            status = message.get("status")
            self._exited(work, status if type(status) is int and 0 <= status <= 255 else 255)

    def _started(self, work: Exec, fds: list[int]) -> None:
        streams = work.streams
        if fds:
            work.terminal = fds[0]
            work.ours = {"stdin": os.dup(fds[0]), "stdout": os.dup(fds[0])}
        for name in ("stdout", "stderr"):
            if name in work.ours:
                self._outflow(work, work.ours.pop(name), streams[name])
        if "stdin" in work.ours:
            inflow = flows.Inflow(
                self._loop, self._channel, work.ours.pop("stdin"), streams["stdin"]
            )
            work.inflow = self._inflows[inflow.stream] = inflow
        self._channel.send_message(wire.response(work.request, {"exec": work.number}))
        work.request = 0

    def _outflow(self, work: Exec, fd: int, stream: int) -> None:
        def ended() -> None:
            self._outflows.pop(stream, None)
            work.open_flows -= 1
            self._conclude(work)

        work.open_flows += 1
        outflow = flows.Outflow(self._loop, self._channel, fd, stream, ended)
        self._outflows[stream] = outflow
        work.outflows.append(outflow)

    def _exited(self, work: Exec, status: int) -> None:
        work.status = status
        for outflow in list(work.outflows):
            outflow.finish()
        self._conclude(work)

    def _conclude(self, work: Exec) -> None:
        """Tell the host once the command has ended and all its output is under way."""
        if work.status is None or work.open_flows or work.number not in self._execs:
            return
        self._forget(work)
        self.tell("exited", {"exec": work.number, "status": work.status})

    def _forget(self, work: Exec) -> None:
        self._execs.pop(work.number, None)
        if work.inflow is not None:
            self._inflows.pop(work.inflow.stream, None)
            work.inflow.close()
        for fd in (*work.ours.values(), work.terminal):
            if fd >= 0:
                os.close(fd)
        work.ours = {}
        if work.request:  # it never started
            for stream in work.streams.values():
                self._channel.reset(stream, "the command did not start")

    def _lost(self, agent: agents.Agent) -> None:
        """The jail is gone: so are its commands."""
        assert agent.socket is not None
        self._loop.forget(agent.socket.fileno())
        agent.kill()
        self._agents.pop(agent.number, None)
        if agent.up_request is not None:
            body = wire.error(agent.up_request, RPC_FAILED, "the jail ended while starting", {})
            self._channel.send_message(body)
        for work in [work for work in self._execs.values() if work.agent is agent]:
            if work.request:
                body = wire.error(work.request, RPC_FAILED, "the jail is gone", {"errno": 0})
                self._channel.send_message(body)
                self._forget(work)
            else:
                self._exited(work, 128 + signal.SIGKILL)
        self._flush()

    def reap(self) -> None:
        """Collect ended children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            work = self._children.pop(pid, None)
            if work is not None:
                code = os.waitstatus_to_exitcode(status)
                self._exited(work, code if code >= 0 else 128 - code)


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def _bytes_text(text: str) -> str:
    """A byte string that travelled as one character a byte, as Python names files."""
    return os.fsdecode(text.encode("latin-1"))


def main() -> None:
    """Boot, find the carrier, serve until the host is gone; then power off."""
    boot.mount_kernel_filesystems()
    boot.move_root()
    boot.load_modules()
    boot.start_cgroups()
    port = carrier.connect(boot.take_secret())
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
    supervisor.tell("ready", {"version": wire.VERSION, "kernel": os.uname().release})
    try:
        loop.run()
    finally:
        sys.stdout.flush()
        power_off()


def power_off() -> None:
    """Stop the machine; PID 1 must not simply return, which is a kernel panic."""
    linux.reboot(linux.RB_POWER_OFF)
