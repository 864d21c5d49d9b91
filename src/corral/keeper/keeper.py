"""The keeper of one sandbox, apart from its machine and its socket: state, commands, logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..errors import CorralError, SandboxStateError
from ..events import (
    AgentBecame,
    Became,
    CommandEnded,
    CommandStarted,
    Connection,
    Event,
    Notice,
    Report,
    json_line,
)
from ..gateway.account import Spent
from ..journal import Journal, Syncing
from ..paths import log_dir
from ..plan import Plan
from ..policy import Publish
from ..sandbox import AgentStatus, Execution, Usage
from ..sandbox.debug import DebugShell
from ..sandbox.gateway import spent
from ..sandbox.ports import Port, shown
from ..tasks.queue import Tasks
from ..terminals.recorded import Recordings
from ..terminals.recordings import RECORDINGS
from ..terminals.transcripts import Transcripts, shortened
from .messages import AgentRow
from .model import State
from .running import Running
from .sessions import Sessions

STOP_GRACE = 10.0  # seconds that commands get between TERM and the end
_SIGNAL_TIME = 5.0  # seconds for the guest to take a signal
_RESUME_TIME = 15.0  # seconds for it to go on after a pause, before it is stopped


class Box(Protocol):
    """What a keeper needs of a Sandbox."""

    plan: Plan
    debug_shells: tuple[DebugShell, ...]

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
        agent: int = 1,
    ) -> Execution:
        """Start a command."""

    async def kill(self, agent: int = 1) -> None:
        """End every process of an agent."""

    async def sync(self) -> None:
        """Write back."""

    async def pause(self) -> None:
        """Halt the machine."""

    async def resume(self) -> None:
        """Let it go on, with its clock right."""

    async def usage(self, *, myself: bool = False) -> Usage:
        """What it uses of the host."""

    async def agents(self) -> tuple[AgentStatus, ...]:
        """How its agents are."""

    async def publish(self, publish: Publish) -> Port:
        """Have a port of the host lead into it."""

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        """Publish it no more."""

    async def published(self) -> tuple[Port, ...]:
        """The ports of the host that lead into it."""

    async def save(
        self, memory: int, state: int, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Write it, as it is now, to two empty files; it runs on."""


class Saver(Protocol):
    """Makes checkpoints; see `checkpoints`."""

    async def checkpoint(self, box: Box, tag: str, *, replace: bool) -> None:
        """One that stays."""

    async def fork(
        self,
        box: Box,
        names: Sequence[str],
        wanted: Callable[[], bool],
        run_on: Callable[[], Awaitable[None]],
    ) -> tuple[Path, str | None]:
        """One for copies to go on from."""


class Keeper:
    """What all clients of one sandbox share. box: the sandbox, while it is up."""

    def __init__(self, name: str, events: Journal, console: Journal, report: Report) -> None:
        self.name = name
        self.journals = {"events": events, "console": console}
        self.state: State = "starting"
        self.box: Box | None = None
        self.saver: Saver | None = None
        self.tasks: Tasks | None = None
        self.running: dict[int, Running] = {}
        self.stopping = asyncio.Event()
        self.grace = STOP_GRACE
        self.syncing = Syncing()
        self.transcripts = Transcripts(lambda: log_dir(name), self.syncing)
        self.recordings = Recordings(
            lambda: log_dir(name) / RECORDINGS, self.transcripts, self.syncing
        )
        self.sessions = Sessions(self, self.recordings)
        self.task_of: Callable[[int], str | None] = lambda _agent: None  # what an agent works on
        self._numbers = itertools.count(1)
        self._further = report
        self._changing = asyncio.Lock()  # pause, resume, save
        self._forking = asyncio.Lock()  # one at a time: copies of one given up are in the way
        self._not_saving = asyncio.Event()
        self._not_saving.set()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._listeners: list[Callable[[State], None]] = []

    # What happens

    def report(self, event: Event) -> None:
        """Into the event log, and on to whoever started the keeper.

        Connections have a log of their own (`corral net log`): what a guest makes as many as it
        likes of must not drive everything else out of this one.
        """
        if isinstance(event, Connection):
            return
        line = {"time": round(time.time(), 3), "sandbox": self.name, **msgspec.to_builtins(event)}
        self.journals["events"].write(json_line(line))
        if isinstance(event, AgentBecame):
            told = {"state": event.state, "reason": event.reason}
            self.transcripts.record(event.agent, "agent", **told)
        self._further(event)

    def on_change(self, listener: Callable[[State], None]) -> None:
        """Call `listener` with each new state."""
        self._listeners.append(listener)

    def become(self, state: State) -> None:
        """Change the state."""
        self.state = state
        self.report(Became(sandbox=self.name, state=state))
        for listener in self._listeners:
            listener(state)

    def up(self, box: Box) -> None:
        """The sandbox runs."""
        self.box = box
        self.become("running")

    def _running_box(self) -> Box:
        if self.box is None or self.state != "running":
            hints = {
                "paused": f"Let it go on: corral resume {self.name}",
                "starting": "Try again when it is up.",
            }
            raise SandboxStateError(
                f"the sandbox {self.name} is {self.state}.", hint=hints.get(self.state)
            )
        return self.box

    # What clients ask for

    async def exec(self, argv: Sequence[str], *, session: str = "", **options: Any) -> Running:
        """Start a command, with the options of `Sandbox.exec`."""
        # However long that takes: a guest that stands still would be taken for one that hangs.
        await self._not_saving.wait()
        box = self._running_box()
        execution = await box.exec(argv, **options)
        number = next(self._numbers)
        shown = shortened(argv)
        running = Running(
            number=number,
            argv=shown,
            since=time.time(),
            execution=execution,
            over=asyncio.Event(),
            agent=options.get("agent", 1),
            session=session,
            quiet=bool(options.get("builtin")),
        )
        self.running[number] = running
        self._idle.clear()
        self.report(CommandStarted(command=number, argv=shown))
        if not running.quiet:
            self.transcripts.started(running, session)
        return running

    def present_tasks(self) -> Tasks:
        """The tasks of the sandbox. Raises SandboxStateError while there can be none."""
        if self.tasks is None:
            raise SandboxStateError(
                f"the sandbox {self.name} is {self.state}.", hint="Try again when it is up."
            )
        return self.tasks

    def ended(self, running: Running, status: int) -> None:
        """A command ended."""
        seconds = round(time.time() - running.since, 3)
        self.report(CommandEnded(command=running.number, status=status, seconds=seconds))
        self.forget(running, status)

    def forget(self, running: Running, status: int | None = None) -> None:
        """A command is none any more."""
        if not (running.quiet or running.over.is_set()):
            seconds = time.time() - running.since
            self.transcripts.ended(running, status, seconds, running.session)
        running.over.set()
        self.running.pop(running.number, None)
        if not self.running:
            self._idle.set()

    async def kill(self, agent: int) -> None:
        """End every process of an agent."""
        await self._running_box().kill(agent)

    async def sync(self) -> None:
        """Have the guest write everything back to the shares."""
        await self._running_box().sync()

    async def pause(self) -> None:
        """Halt the machine; done already, nothing happens."""
        async with self._changing:
            if self.state != "paused":
                await self._running_box().pause()
                self.become("paused")

    async def resume(self) -> None:
        """Let a halted machine go on; of one that runs, nothing."""
        async with self._changing:
            if self.state == "paused" and self.box is not None:
                await self.box.resume()
                self.become("running")
            else:
                self._running_box()

    async def checkpoint(self, tag: str, *, replace: bool) -> None:
        """Keep the sandbox as it is now under a tag; it runs on."""
        async with self._saving() as (box, saver):
            await saver.checkpoint(box, tag, replace=replace)

    async def fork(
        self, names: Sequence[str], wanted: Callable[[], bool]
    ) -> tuple[Path, str | None]:
        """Save the sandbox for copies of these names; it runs on while more than one are made.

        wanted: whether somebody still waits for them; threads ask it, too. Returns the folder that
        they go on from, and what the user should know of them.
        """

        def go_on() -> bool:
            return wanted() and self.box is not None and not self.stopping.is_set()

        async with self._forking, contextlib.AsyncExitStack() as saving:
            box, saver = await saving.enter_async_context(self._saving())
            return await saver.fork(box, names, go_on, saving.aclose)

    @contextlib.asynccontextmanager
    async def _saving(self) -> AsyncIterator[tuple[Box, Saver]]:
        async with self._changing:
            box = self._running_box()
            if self.saver is None:
                raise SandboxStateError(f"the sandbox {self.name} cannot be saved.")
            self._not_saving.clear()
            try:
                yield box, self.saver
            finally:
                self._not_saving.set()

    def stop(self, grace: float = STOP_GRACE) -> None:
        """End the sandbox; grace: seconds for its commands. Asked again with 0, at once."""
        if not self.stopping.is_set():
            self.grace = grace
        if grace <= 0:
            self._hurry.set()
        self.stopping.set()

    # The end

    async def wind_down(self) -> None:
        """Before the machine ends: let it go on, then TERM to its commands, and `grace` seconds."""
        await self._not_saving.wait()
        await _bounded(self._go_on(), _RESUME_TIME)
        self.become("stopping")
        await self.sessions.hang_up()
        if self.tasks is not None:
            self.tasks.stop()
        told = (each.execution.signal(signal.SIGTERM, group=True) for each in self.running.values())
        await asyncio.gather(*(_bounded(each, _SIGNAL_TIME) for each in told))
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry)]
        await asyncio.wait(waits, timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.running:
            self.report(
                Notice(
                    level="warning",
                    message=f"{len(self.running)} commands ran on after TERM and were ended.",
                )
            )

    async def _go_on(self) -> None:
        async with self._changing:
            if self.state == "paused" and self.box is not None:
                await self.box.resume()

    def check_running(self) -> None:
        """Raises SandboxStateError unless commands can be reached."""
        if self.state != "stopping":
            self._running_box()

    async def stats(self) -> dict[str, Any]:
        """What the sandbox uses."""
        usage = await self._present().usage(myself=True)
        return {
            "state": self.state,
            "commands": len(self.running),
            "usage": msgspec.to_builtins(usage),
        }

    async def agents(self) -> tuple[AgentRow, ...]:
        """How its agents are, what they do and what they spent."""
        statuses = await self._running_box().agents()
        account = await asyncio.to_thread(spent, self.name)
        return tuple(
            AgentRow(
                status=each,
                task=self.task_of(each.number),
                spent=account.get(each.number, Spent()),
            )
            for each in statuses
        )

    async def publish(self, publish: Publish) -> Port:
        """Have a port of the host lead into it, until it stops. Raises PortError."""
        port = await self._present().publish(publish)
        self.report(Notice(level="info", message=f"port {port.guest_port} is at {shown(port)}"))
        return port

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        """Publish it no more. Raises PortError."""
        gone = await self._present().unpublish(port, address)
        self.report(Notice(level="info", message=f"{shown(gone)} is not published any more"))
        return gone

    async def published(self) -> tuple[Port, ...]:
        """The ports of the host that lead into it."""
        return await self._present().published()

    def _present(self) -> Box:
        """The sandbox, paused or not."""
        return self.box or self._running_box()

    async def inspect(self) -> dict[str, Any]:
        """What is known only while it runs."""
        return {
            "ports": msgspec.to_builtins(await self.published()) if self.box else [],
            "commands": [
                {"command": each.number, "argv": list(each.argv), "since": each.since}
                for each in self.running.values()
            ],
            "debug_shells": msgspec.to_builtins(self.box.debug_shells) if self.box else [],
            "sessions": msgspec.to_builtins(self.sessions.listed()),
            "log_failure": next(
                (each.failure for each in self.journals.values() if each.failure), None
            ),
        }


async def _bounded(work: Awaitable[None], seconds: float) -> None:
    """What the end of a sandbox does not depend on: its guest may not do it."""
    with contextlib.suppress(CorralError, TimeoutError):
        async with asyncio.timeout(seconds):
            await work
