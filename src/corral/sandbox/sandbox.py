"""One running sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from ..channel import Abandoned, Channel, Execution, Stream
from ..channel.failures import printable
from ..errors import (
    ChannelError,
    CommandNotFoundError,
    CorralError,
    ExecError,
    GuestError,
    NotExecutableError,
)
from ..plan import Plan
from ..policy import Publish
from .agents import Agents, AgentStatus
from .checkpoint import save, thaw
from .debug import DebugShell
from .machine import Machine
from .network import Traffic
from .ports import Port, Ports
from .usage import Usage, measure
from .wake import set_clock, wake

T = TypeVar("T")

CALL_TIMEOUT = 60.0  # seconds for a short request, under emulation and on a busy host
STILL_TIMEOUT = 5.0  # seconds for the agents to stand still before the machine is halted anyway


class Sandbox:
    """A machine that runs and its channel. Made by `start`; every method needs it to be alive."""

    def __init__(
        self,
        plan: Plan,
        machine: Machine,
        channel: Channel,
        ports: Ports,
        traffic: Traffic,
        agents: Agents,
        *,
        first: int = 1,
    ) -> None:
        """ports: the published ones; whoever made them ends them. first: the number of its first
        command; lower ones belong to what it is a copy of.
        """
        self.ports = ports
        self.debug_shells: tuple[DebugShell, ...] = ()
        self._traffic = traffic
        self._agents = agents
        self.plan = plan
        self.machine = machine
        self.folder = machine.folder
        self.channel = channel
        self._channel = channel
        self._why_gone = machine.why_gone
        self._monitor = machine.monitor
        self._statuses: dict[int, asyncio.Future[int]] = {}
        self._abandoned = Abandoned(channel)
        self._next = first
        self._saving = asyncio.Lock()
        channel.handle("exited", self._exited)

    def _exited(self, params: dict[str, object]) -> None:
        number, status = params.get("exec"), params.get("status")
        if type(number) is not int or not 0 < number < self._next:
            raise ChannelError("the guest reported the end of a command that does not run.")
        if type(status) is not int or not 0 <= status <= 255:
            raise ChannelError("the guest reported an end of a command that makes no sense.")
        future = self._statuses.pop(number, None)
        if future is not None and not future.done():  # else nobody waits for it any more
            future.set_result(status)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
        agent: int = 1,
        builtin: bool = False,
    ) -> Execution:
        """Start a command in agent `agent`'s jail.

        environment: in addition to the plan's. workdir: absolute, default the plan's. terminal:
        (rows, columns) for a terminal of its own. agent 0 is the guest's root, outside every jail:
        for tests and checks. builtin: argv is one of corral_guest.files, run in the jail as the
        agent in place of a program (see `Files`). Raises CommandNotFoundError,
        NotExecutableError, ExecError.
        """
        ours = next((a for a in self.plan.agents if a.number == agent), None)
        if ours is None and agent != 0:
            raise no_agent(self.plan.name, agent, [each.number for each in self.plan.agents])
        variables = dict(ours.environment) if ours else {"PATH": "/usr/bin"}
        variables |= environment or {}
        folder = workdir or (ours.workdir if ours else "/")
        if any("\0" in text for text in (*argv, folder, *variables, *variables.values())):
            raise ExecError("an argument, variable or folder has a NUL in it, which none can have.")
        number, self._next = self._next, self._next + 1
        params = {
            "exec": number,
            "agent": agent,
            "argv": [_bytewise(item) for item in argv],
            "env": {_bytewise(k): _bytewise(v) for k, v in variables.items()},
            "cwd": _bytewise(folder),
            "terminal": terminal,
            "builtin": builtin,
        }
        return await self._start(number, params, argv[0], folder)

    async def _start(
        self, number: int, params: dict[str, object], command: str, folder: str
    ) -> Execution:
        names = ("stdin", "stdout") if params["terminal"] else ("stdin", "stdout", "stderr")
        streams = {name: self._channel.open_stream() for name in names}
        params["streams"] = {name: stream.id for name, stream in streams.items()}
        # Before the call: a short command may end before this task runs again.
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._statuses[number] = status
        try:
            await self.or_lost(self._channel.call("exec", params, timeout=CALL_TIMEOUT))
        except BaseException as error:
            self._statuses.pop(number, None)
            for stream in streams.values():
                stream.reset("the command did not start")
            self._abandoned.given_up(number, error)
            if isinstance(error, GuestError):
                raise exec_error(command, folder, error) from error
            if isinstance(error, ValueError):
                raise ExecError(
                    f"the command line and environment are too long: {error}.", hint=_TOO_LONG
                ) from error
            raise
        for name in names[1:]:
            await streams[name].end()  # nothing goes that way
        return Execution(self._channel, number, streams, status, self.or_lost)

    async def dial(self, agent: int, port: int) -> Stream:
        """A connection to a port of an agent's loopback, IPv4 or else IPv6.

        Raises GuestError when nobody listens there, ChannelError, SandboxGoneError.
        """
        stream = self._channel.open_stream()
        params = {"agent": agent, "stream": stream.id, "port": port}
        try:
            await self.or_lost(self._channel.call("dial", params, timeout=CALL_TIMEOUT))
        except BaseException:
            stream.reset("nobody waits for it")
            raise
        return stream

    # Ports of the host that lead into it

    async def publish(self, publish: Publish) -> Port:
        """Have a port of the host lead to one of agent 1's loopback. Raises PortError."""
        return self.ports.bind(publish)

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        """Publish it no more; its connections are reset. Raises PortError."""
        return await self.ports.remove(port, address)

    async def published(self) -> tuple[Port, ...]:
        """The ports of the host that lead into it."""
        return self.ports.listed()

    @property
    def machine_id(self) -> str:
        """What its agents' /etc/machine-id says."""
        return self._agents.machine_id

    @property
    def open_streams(self) -> int:
        """How many byte streams to the guest are open."""
        return self._channel.open_streams

    async def usage(self, *, myself: bool = False) -> Usage:
        """What it uses of the host. myself: count this process and all below it, too.

        Raises SandboxGoneError.
        """
        machine = self.machine
        root = os.getpid() if myself else machine.pid
        work = asyncio.to_thread(measure, (root,), ram=machine.memory, disk=machine.disk)
        usage = await self.or_lost(work)
        ports = self.ports.listed()
        return msgspec.structs.replace(
            usage,
            received=self._traffic.received + sum(port.received for port in ports),
            sent=self._traffic.sent + sum(port.sent for port in ports),
        )

    async def kill(self, agent: int = 1) -> None:
        """End every process of an agent at once."""
        await self._agents.kill(agent)

    async def agents(self) -> tuple[AgentStatus, ...]:
        """How its agents are, by number. Raises ChannelError, SandboxGoneError."""
        return await self.or_lost(self._agents.listed())

    async def sync(self) -> None:
        """Have the guest write everything back to the shares."""
        await self._channel.call("sync", timeout=CALL_TIMEOUT)

    async def pause(self) -> None:
        """Halt the machine: nothing in it runs, and it answers nothing. Raises ProcessError.

        Its agents stand still before that, if the guest says so soon. A request that is on its way
        to a file server of QEMU 7.2 in that moment would be carried out a second time afterwards,
        and the guest would give the file system up: in vu_get_vring_base_exec, libvhost-user notes
        how far it has read before the thread that reads has ended.
        """
        try:
            with contextlib.suppress(GuestError, ChannelError):
                await self.or_lost(self._channel.suspend("freeze", STILL_TIMEOUT))
            await self.or_lost(self._monitor.execute("stop"))
        except BaseException:
            with contextlib.suppress(CorralError):
                await self.resume()
            raise

    async def resume(self) -> None:
        """Let a halted machine go on, its clock right again.

        Raises ProcessError, GuestError, ChannelError.
        """
        await self.or_lost(self._monitor.execute("cont"))
        self._channel.resume()
        await self.or_lost(thaw(self._channel))
        await self.or_lost(wake(self._channel, self.plan))
        await self.or_lost(set_clock(self._channel))

    async def save(
        self, memory: int, state: int, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Write it, as it is now, to two empty files; it runs on. See `checkpoint.save`.

        One at a time: who is done lets it go on, which nobody else may be in the middle of.
        """
        async with self._saving:
            await save(self, memory, state, meanwhile)

    async def or_lost(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`; SandboxGoneError when the sandbox ends first."""
        return await self._why_gone.guard(awaitable)


def no_agent(name: str, agent: int, known: Sequence[int]) -> ExecError:
    """The error for an agent that there is not."""
    return ExecError(
        f"the sandbox {name} has no agent {agent}.",
        hint=f"There {'are' if len(known) > 1 else 'is'}: {', '.join(map(str, known))}.",
    )


def _bytewise(text: str) -> str:
    """A name or argument as its bytes, one character a byte: JSON carries Unicode only."""
    return os.fsencode(text).decode("latin-1")


def exec_error(command: str, folder: str, error: GuestError) -> ExecError:
    """Why a command did not start, from the guest's errno and what it belongs to."""
    number, what = error.data.get("errno"), error.data.get("what")
    shown = printable(command) or "the empty command"
    if type(number) is not int or not number:
        return ExecError(f"{shown}: the sandbox could not start it: {error.message}.")
    text = os.strerror(number)
    if what == "workdir":
        return ExecError(
            f"the working folder {printable(folder)} cannot be entered in the sandbox: {text}.",
            hint="Only the workspace, shares and system folders are there (--workdir, --share).",
        )
    if what == "interpreter":
        named = error.data.get("interpreter")
        interpreter = printable(named) if isinstance(named, str) and named else "loader"
        return CommandNotFoundError(
            f"{shown}: its interpreter ({interpreter}) is not in the sandbox.",
            hint="Programs come from the host's /usr and /opt; --tool adds a folder.",
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return CommandNotFoundError(
            f"{shown}: not found in the sandbox (started in {printable(folder)}).",
            hint="Programs come from the host's /usr and /opt; --tool adds a folder.",
        )
    if what == "program":
        hint = _NOT_EXECUTABLE.get(number)
        return NotExecutableError(f"{shown}: cannot be executed: {text}.", hint=hint)
    return ExecError(f"{shown}: the sandbox could not start it: {text}.")


_TOO_LONG = "Pass long input through standard input or a file."
_NOT_EXECUTABLE = {
    errno.E2BIG: _TOO_LONG,
    errno.ENOEXEC: "A script needs a first line such as #!/bin/sh; else say what runs it: sh FILE.",
    errno.EACCES: "A program must be a file with execute permission (chmod +x).",
}
