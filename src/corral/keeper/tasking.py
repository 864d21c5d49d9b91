"""The tasks of a kept sandbox: what they are run with, and what is told of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from ..errors import CorralError
from ..events import TaskBegan, TaskEnded
from ..gateway.config import TRANSCRIPT
from ..plan import Plan
from ..sandbox import Execution
from ..sandbox.gateway import gateway_folder
from ..spec import Spec
from ..tasks.history import OnDisk, folder_of
from ..tasks.model import Heartbeat, Outgoing, Result, Transcript
from ..tasks.places import places
from ..tasks.queue import Tasks
from ..tasks.run import Tools
from ..tasks.spending import Meter
from .keeper import Keeper
from .model import State


@contextlib.asynccontextmanager
async def tasks_of(keeper: Keeper, spec: Spec, plan: Plan, life: str) -> AsyncIterator[None]:
    """Have the keeper take tasks. life: the name of its run, as in ids of the gateway."""
    transcript = gateway_folder(plan.name) / TRANSCRIPT if plan.gateways else None
    hands = Hands(keeper)
    tools = Tools(
        begin=hands.command,
        actions={action.name: action for action in spec.actions},
        meter=Meter(transcript, life),
        cpu=hands.cpu,
        ready=hands.ready,
    )
    history = OnDisk(folder_of(keeper.name))
    keeper.sessions.places = found = places(spec, plan)
    async with Tasks(found, tools, history, _Told(keeper)) as tasks:
        keeper.tasks, keeper.task_of = tasks, tasks.what
        try:
            yield
        finally:
            keeper.tasks = None


class Hands:
    """What a keeper's tasks are done with."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._going = asyncio.Event()  # the machine is not halted
        self._going.set()
        keeper.on_change(self._changed)

    def _changed(self, state: State) -> None:
        if state == "paused":
            self._going.clear()
        else:
            self._going.set()

    async def ready(self) -> None:
        """Until the machine is not halted: nothing in it can begin, or be ended."""
        await self._going.wait()

    @contextlib.asynccontextmanager
    async def command(self, argv: Sequence[str], **options: Any) -> AsyncIterator[Execution]:
        """A command, with the options of `Sandbox.exec`, until the block is left."""
        running = await self._keeper.exec(argv, **options)
        try:
            yield running.execution
        finally:
            status = running.execution.status
            if status is None:
                self._keeper.forget(running)
            else:
                self._keeper.ended(running, status)

    async def cpu(self, agent: int) -> float | None:
        """Seconds of processor time that an agent has had; None when nobody knows."""
        if self._keeper.box is None:
            return None
        try:
            statuses = await self._keeper.box.agents()
        except CorralError:
            return None
        return next((each.cpu for each in statuses if each.number == agent), None)


class _Told:
    """Into the event log: that a task begins, and that it has ended. Into the agent's transcript:
    also what it writes, and which files it changed.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._begun: set[str] = set()

    def __call__(self, message: Outgoing) -> None:
        if isinstance(message, Heartbeat):
            if message.state == "running" and message.id not in self._begun:
                self._begun.add(message.id)
                self._keeper.report(TaskBegan(task=message.id, agent=message.agent))
                self._record(message.agent, "task", task=message.id, state="began")
        elif isinstance(message, Transcript):
            said = {"stream": message.stream, "text": message.text}
            self._record(message.agent, "output", task=message.id, **said)
        elif isinstance(message, Result) and message.id is not None:
            self._begun.discard(message.id)
            seconds = round(message.ended - (message.began or message.ended), 3)
            self._keeper.report(
                TaskEnded(
                    task=message.id, agent=message.agent, status=message.status, seconds=seconds
                )
            )
            told = {"status": message.status, "exit_status": message.exit_status}
            self._record(
                message.agent, "task", task=message.id, state="ended", **told, seconds=seconds
            )
            if message.changes is not None:
                changes = msgspec.to_builtins(message.changes)
                self._record(message.agent, "files", task=message.id, **changes)

    def _record(self, agent: int, kind: str, **fields: object) -> None:
        self._keeper.transcripts.record(agent, kind, **fields)
