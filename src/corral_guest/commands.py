"""The commands of a guest: their descriptors, their streams, and what the host is told of them."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from . import flows, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .agent import Agent
    from .loop import Loop

RPC_FAILED = -32000  # JSON-RPC 2.0: implementation-defined server errors
MAX_INTERPRETER = 256  # bytes of a script's first line that Linux reads (BINPRM_BUF_SIZE)
_WHAT = ("program", "interpreter", "workdir")


class Command:
    """One command. agent: None for one outside every jail. request: the call that is unanswered.

    ours: our ends of its pipes until it has started. terminal: the terminal's master, or -1.
    """

    __slots__ = (
        "agent",
        "inflow",
        "number",
        "open_flows",
        "ours",
        "outflows",
        "request",
        "status",
        "streams",
        "terminal",
    )

    def __init__(
        self, number: int, agent: Agent | None, request: int, streams: dict[str, int]
    ) -> None:
        self.number = number
        self.agent = agent
        self.request = request
        self.streams = streams
        self.outflows: list[flows.Outflow] = []
        self.inflow: flows.Inflow | None = None
        self.terminal = -1
        self.status: int | None = None
        self.open_flows = 0
        self.ours: dict[str, int] = {}


class Commands:
    """All of them, by the host's number for each."""

    def __init__(self, loop: Loop, channel: wire.Connection) -> None:
        self._loop = loop
        self._channel: wire.Connection | flows.Nowhere = channel
        self._commands: dict[int, Command] = {}
        self._outflows: dict[int, flows.Outflow] = {}
        self._inflows: dict[int, flows.Inflow] = {}

    def find(self, number: object) -> Command | None:
        """The command of that number, unless it has ended; None for what is no number, too."""
        return self._commands.get(number) if type(number) is int else None

    @property
    def last(self) -> int:
        """The highest number in use; 0 when there is none."""
        return max(self._commands, default=0)

    def strand(self) -> None:
        """The host that started them is gone, and they are to run on without noticing."""
        nowhere = self._channel = flows.Nowhere()
        for inflow in self._inflows.values():
            inflow.strand(nowhere)
        for outflow in list(self._outflows.values()):
            outflow.strand(nowhere)

    def of_agent(self, agent: Agent) -> list[Command]:
        """Those that run in an agent's jail."""
        return [command for command in self._commands.values() if command.agent is agent]

    def create(
        self, request: int, params: dict[str, Any], agent: Agent | None
    ) -> tuple[Command, list[int]]:
        """Open its streams and pipes; returns it and its own ends, which the caller closes."""
        command = Command(params["exec"], agent, request, params["streams"])
        for stream in command.streams.values():
            self._channel.open(stream)  # now: the host may give one up before the command starts
        self._commands[command.number] = command
        theirs: list[int] = []
        if not params["terminal"]:
            for name in ("stdin", "stdout", "stderr"):
                read, write = os.pipe2(os.O_CLOEXEC)
                ours, their = (write, read) if name == "stdin" else (read, write)
                if agent is not None:
                    os.fchown(their, agent.uid, agent.uid)  # for who opens /dev/stderr anew
                command.ours[name] = ours
                theirs.append(their)
        return command, theirs

    def started(self, command: Command, terminal: int) -> None:
        """It runs. terminal: the master of its terminal, which becomes ours, or -1."""
        if terminal >= 0:
            command.terminal = terminal
            command.ours = {"stdin": os.dup(terminal), "stdout": os.dup(terminal)}
        for name in ("stdout", "stderr"):
            if name in command.ours:
                self._outflow(command, command.ours.pop(name), command.streams[name])
        stream = command.streams["stdin"]
        command.inflow = self._inflows[stream] = flows.Inflow(
            self._loop,
            self._channel,
            command.ours.pop("stdin"),
            stream,
            terminal=terminal >= 0,
        )
        for stream in command.streams.values():
            if not self._channel.is_open(stream):  # given up by the host in the meantime
                self._given_up(stream)
        self._channel.send_message(wire.response(command.request, {}))
        command.request = 0

    def _given_up(self, stream: int) -> None:
        if stream in self._inflows:
            self._inflows[stream].end()  # a host that gave its input up has ended it, too
        elif stream in self._outflows:
            self._outflows[stream].give_up()

    def _outflow(self, command: Command, fd: int, stream: int) -> None:
        def ended(given_up: bool) -> None:
            self._outflows.pop(stream, None)
            command.open_flows -= 1
            if given_up:
                self._hang_up(command)
            self._conclude(command)

        command.open_flows += 1
        outflow = flows.Outflow(
            self._loop,
            self._channel,
            fd,
            stream,
            ended,
            command.agent.share if command.agent is not None else flows.Share(),
            command.agent.vitals.spoke if command.agent is not None else None,
        )
        self._outflows[stream] = outflow
        command.outflows.append(outflow)

    def _hang_up(self, command: Command) -> None:
        """The host's end of a terminal is gone: close ours, and the kernel sends SIGHUP."""
        if command.terminal >= 0:
            if command.inflow is not None:
                command.inflow.close()
            os.close(command.terminal)
            command.terminal = -1

    def failed(self, command: Command, reason: dict[str, Any]) -> None:
        """It did not start. reason: the jail's, unchecked: errno, what, interpreter."""
        number, what = reason.get("errno"), reason.get("what")
        number = number if type(number) is int and 0 < number < 4096 else 0
        data: dict[str, Any] = {"errno": number, "what": what if what in _WHAT else ""}
        interpreter = reason.get("interpreter")
        if type(interpreter) is str and len(interpreter) <= MAX_INTERPRETER:
            data["interpreter"] = interpreter
        text = os.strerror(number) if number else str(reason.get("text", ""))
        self._channel.send_message(wire.error(command.request, RPC_FAILED, text, data))
        self.forget(command)

    def exited(self, command: Command, status: int) -> None:
        """It ended; the host hears of it once its output is under way."""
        command.status = status
        for outflow in list(command.outflows):
            outflow.finish()
        self._conclude(command)

    def _conclude(self, command: Command) -> None:
        if command.status is None or command.open_flows or command.number not in self._commands:
            return
        self.forget(command)
        params = {"exec": command.number, "status": command.status}
        self._channel.send_message(wire.notification("exited", params))

    def forget(self, command: Command) -> None:
        """Close what belongs to it."""
        self._commands.pop(command.number, None)
        if command.inflow is not None:
            self._inflows.pop(command.inflow.stream, None)
            command.inflow.close()
        for fd in (*command.ours.values(), command.terminal):
            if fd >= 0:
                os.close(fd)
        command.ours = {}
        command.terminal = -1
        if command.request:  # it never started
            for stream in command.streams.values():
                self._channel.reset(stream, "the command did not start")

    def resize(self, number: int, rows: int, columns: int) -> None:
        """Set the size of a command's terminal; the kernel sends SIGWINCH."""
        command = self.find(number)
        if command is not None and command.terminal >= 0:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(command.terminal, termios.TIOCSWINSZ, size)

    def handle(self, event: wire.Event) -> None:
        """Something happened on a stream."""
        assert not isinstance(event, wire.Message)
        inflow, outflow = self._inflows.get(event.stream), self._outflows.get(event.stream)
        if isinstance(event, wire.Reset):
            self._given_up(event.stream)
        elif isinstance(event, wire.Data) and inflow is not None:
            inflow.data(event.data)
        elif isinstance(event, wire.Ended) and inflow is not None:
            inflow.end()
        elif isinstance(event, wire.Credit) and outflow is not None:
            outflow.resume()

    def room(self) -> None:
        """The carrier has taken what was queued: those that waited for that go on."""
        crowded = [each for each in self._outflows.values() if each.crowded]
        # Who has waited longest comes first: what is watched first is heard first (epoll(7)).
        for outflow in sorted(crowded, key=lambda each: each.turn):
            outflow.resume()
