"""Tasks for agents, from a program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from ..channel import Execution
from ..errors import CorralError
from ..gateway.config import TRANSCRIPT
from ..sandbox import Sandbox as Machine
from ..sandbox.gateway import gateway_folder
from ..spec import Spec as Settings
from ..tasks.model import Result as TaskResult
from ..tasks.model import Task
from ..tasks.parse import task
from ..tasks.places import places
from ..tasks.queue import Tasks
from ..tasks.run import Tools
from ..tasks.spending import Meter


class Takes(Protocol):
    """What takes tasks: a sandbox of this process, or a keeper."""

    async def submit(self, task: Task, *, agent: int = 1, number: str | None = None) -> str:
        """Give one; returns its id."""

    async def result(self, number: str) -> TaskResult:
        """How it ended, once it has."""

    async def cancel(self, number: str) -> None:
        """End it."""


def tasks_of(machine: Machine, spec: Settings) -> Tasks:
    """The tasks of a machine of this process."""
    plan = machine.plan
    transcript = gateway_folder(plan.name) / TRANSCRIPT if plan.gateways else None

    @contextlib.asynccontextmanager
    async def begin(
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        workdir: str | None,
        agent: int,
    ) -> AsyncIterator[Execution]:
        yield await machine.exec(argv, environment=environment, workdir=workdir, agent=agent)

    async def cpu(agent: int) -> float | None:
        try:
            statuses = await machine.agents()
        except CorralError:
            return None
        return next((each.cpu for each in statuses if each.number == agent), None)

    tools = Tools(
        begin=begin,
        cpu=cpu,
        actions={action.name: action for action in spec.actions},
        meter=Meter(transcript, machine.machine.folder.name),
    )
    return Tasks(places(spec, plan), tools)


async def perform(takes: Takes, asked: Mapping[str, object], agent: int) -> TaskResult:
    """Give a task and wait for its result; who stops waiting ends it."""
    number = await takes.submit(task(asked), agent=agent)
    try:
        return await takes.result(number)
    except asyncio.CancelledError:
        with contextlib.suppress(CorralError):
            await takes.cancel(number)
        raise
