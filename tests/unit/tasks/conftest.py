"""Tasks whose commands are processes of this host, in a folder that is the workspace."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from corral.agents import Recipe
from corral.channel import Execution
from corral.errors import CommandNotFoundError
from corral.spec import Action
from corral.tasks.commands import Place
from corral.tasks.history import History
from corral.tasks.model import Outgoing
from corral.tasks.queue import Tasks
from corral.tasks.run import Tools
from corral.tasks.spending import Meter
from tests.support.local import Local

ACTIONS = (
    Action(name="test", run=("sh", "-c", 'echo "tested $0 $1 $MODE"'), env=(("MODE", "ci"),)),
    Action(name="slow", run=("sleep", "30"), timeout=0.3),
)


class Bench:
    """What tasks are given to, and what was told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Outgoing] = []
        self.local = Local(folder)
        self.meter = Meter()
        self.recipes: dict[str, Recipe] = {}
        self.cpu = 0.0
        self.begun: list[tuple[int, tuple[str, ...]]] = []

    @contextlib.asynccontextmanager
    async def begin(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        workdir: str | None,
        agent: int,
    ) -> AsyncIterator[Execution]:
        self.begun.append((agent, tuple(argv)))
        try:
            execution = await self.local.exec(argv, environment=environment, workdir=workdir)
        except FileNotFoundError as error:
            raise CommandNotFoundError(f"{argv[0]}: not found.", hint="Look.") from error
        yield cast(Execution, execution)

    async def _cpu(self, _agent: int) -> float | None:
        self.cpu += 1.5
        return self.cpu

    @contextlib.asynccontextmanager
    async def tasks(
        self, agents: int = 1, history: History | None = None, lane: str = ""
    ) -> AsyncIterator[Tasks]:
        places = {
            number: Place(
                agent=number,
                workdir=str(self.folder),
                folder=str(self.folder),
                lane=lane or f"agent-{number}",
            )
            for number in range(1, agents + 1)
        }
        actions = {action.name: action for action in ACTIONS}
        tools = Tools(
            begin=self.begin,
            actions=actions,
            meter=self.meter,
            recipe=self.recipes.__getitem__,
            cpu=self._cpu,
        )
        async with Tasks(places, tools, history, self.told.append) as tasks:
            yield tasks
        for process in self.local.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await self.local.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    return Bench(folder)


Fields = dict[str, Any]
Make = Callable[..., Fields]


def run(*argv: str, **more: Any) -> Fields:
    """The task that runs a command."""
    return {"action": "run", "argv": list(argv), **more}


def sh(script: str, **more: Any) -> Fields:
    """The task that runs a shell's code."""
    return {"action": "execute_code", "language": "sh", "code": script, **more}
