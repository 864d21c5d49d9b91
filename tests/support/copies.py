"""Sandboxes that are saved while they run, and copies that go on from there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from corral.events import silent
from corral.host.copies import copy_folder
from corral.plan.trust import placeholders
from corral.sandbox import Sandbox, host_facts, make_plan, prepare, saved, start
from corral.spec import load_spec

from .sandboxes import DEFAULTS

CHECKPOINTS = {"machine.checkpoints": True}


@dataclass(frozen=True)
class Copy:
    """One that runs, and its workspace on the host."""

    sandbox: Sandbox
    folder: Path


@contextlib.asynccontextmanager
async def copies_of(
    base: Path,
    count: int,
    before: Callable[[Sandbox], Awaitable[object]] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> AsyncIterator[list[Copy]]:
    """The source and `count` copies of it, all running, below the empty folder `base`.

    before: done in the source before it is copied. overrides: further settings of all of them.
    """
    project, checkpoint = base / "project", base / "checkpoint"
    project.mkdir()
    checkpoint.mkdir()
    spec = load_spec(project, {**DEFAULTS, **CHECKPOINTS, **(overrides or {})}, os.environ)
    facts = host_facts(silent)
    plan = make_plan(spec, facts, os.environ)
    parts = prepare(plan, facts, silent)
    folders = [base / f"copy-{number}" for number in range(1, count + 1)]
    async with contextlib.AsyncExitStack() as running:
        source = await running.enter_async_context(start(plan, parts, silent))
        if before is not None:
            await before(source)

        def copy() -> None:
            for folder in folders:
                assert copy_folder(str(project), str(folder)) == []

        with (
            (checkpoint / saved.MEMORY).open("wb+") as memory,
            (checkpoint / saved.STATE).open("wb+") as state,
        ):
            await source.save(memory.fileno(), state.fileno(), copy)
        saved.describe(checkpoint, "project", 0.0, plan, parts, placeholders(source.plan))
        found = [Copy(source, project)]
        for folder in folders:
            workspace = msgspec.structs.replace(spec.workspace, copy=str(folder))
            own = msgspec.structs.replace(spec, name=folder.name, workspace=workspace)
            copy_plan = make_plan(own, facts, os.environ)
            with saved.opened(checkpoint, copy_plan, parts) as whole:
                going_on = start(copy_plan, parts, silent, saved=whole.template)
                sandbox = await running.enter_async_context(going_on)
            found.append(Copy(sandbox, folder))
        yield found
