"""Restored machines: each is its own, and a restore that fails is no harm."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from corral import templates
from corral.events import Event, Notice, Phase, silent
from corral.sandbox import Sandbox, start
from corral.sandbox.template import template_for
from corral.templates import store
from tests.support import leftovers
from tests.support.sandboxes import guest_root, plan_for, run, sandbox_on, shell, succeeded


@pytest.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    """Two sandboxes restored from one template."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    async with sandbox_on(folders[0]) as one, sandbox_on(folders[1]) as two:
        yield one, two


@pytest.fixture
def own_templates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of this test's own; the rest of the cache is everybody's."""
    folder = tmp_path / "templates"
    folder.mkdir()
    monkeypatch.setattr(store, "_root", lambda: folder)
    return folder


async def test_the_first_start_saves_a_machine_and_the_next_restores_it(
    project: Path, own_templates: Path
) -> None:
    phases: list[list[str]] = []
    for _ in range(2):
        seen: list[Event] = []
        async with sandbox_on(project, report=seen.append):
            pass
        phases.append([event.message for event in seen if isinstance(event, Phase)])
    assert phases[0][0].startswith("booting a machine to restore from")
    assert phases[1][0] == "restoring the guest"


async def test_the_clock_is_right(two: tuple[Sandbox, Sandbox]) -> None:
    """Within 50 ms, beyond what asking for it takes: the host's time before and after bounds it."""
    clock = "import time; print(time.time())"
    for sandbox in two:
        best = float("inf")
        for _ in range(5):
            before = time.time()
            guest = float(succeeded(await guest_root(sandbox, clock)))
            after = time.time()
            best = min(best, max(before - guest, guest - after, 0.0))
        assert best < 0.05


async def test_each_sees_its_own_workspace_only(two: tuple[Sandbox, Sandbox]) -> None:
    for number, sandbox in enumerate(two):
        succeeded(await shell(sandbox, f"echo {number} > mine"))
    for number, sandbox in enumerate(two):
        assert succeeded(await shell(sandbox, "ls; cat mine")).split() == ["mine", str(number)]


# Failures


async def test_a_helper_killed_while_restoring_is_no_fault_of_the_template(
    project: Path, own_templates: Path
) -> None:
    """The machine is booted instead, and the next start restores again."""
    plan, parts = plan_for(project)
    template = await template_for(plan, parts, silent)
    assert template is not None
    template.close()
    told = Told()
    killed: list[psutil.Process] = []

    def kill_one(event: Event) -> None:
        told(event)
        if isinstance(event, Phase) and event.name == "agent" and not killed:
            killed.extend(leftovers.running("virtiofsd"))
            killed[0].kill()

    async with start(plan, parts, kill_one) as sandbox:
        assert succeeded(await run(sandbox, "echo", "well")) == "well\n"
    assert killed and len(told.warnings) == 1
    again: list[Event] = []
    async with start(plan, parts, again.append):
        pass
    assert "restoring the guest" in [event.message for event in again if isinstance(event, Phase)]


class Told:
    """Events, and of them the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.warnings.append(event.message)


async def test_a_machine_that_cannot_be_restored_is_booted_and_that_is_said_once(
    project: Path, own_templates: Path
) -> None:
    """Its state is nonsense although the store believes it, as after a fault in QEMU."""
    plan, parts = plan_for(project)
    shape = templates.shape_of(plan, parts.facts, parts.kernel, parts.base)
    told = Told()
    with templates.saving(shape, "nonsense", told) as files:
        assert files is not None
        os.ftruncate(files[0], plan.machine.memory)
        os.write(files[1], b"QEVM" + os.urandom(4096))
    async with start(plan, parts, told) as sandbox:
        assert succeeded(await run(sandbox, "echo", "well")) == "well\n"
    assert len(told.warnings) == 1
    assert "could not be restored" in told.warnings[0]
    assert templates.is_broken(shape.key)
    again = Told()
    async with start(plan, parts, again) as sandbox:
        assert succeeded(await run(sandbox, "echo", "well")) == "well\n"
    assert again.warnings == []


async def test_memory_of_nonsense_is_found_out_and_the_machine_booted(
    project: Path, own_templates: Path
) -> None:
    """The state fits and the memory does not: the guest's kernel cannot go on."""
    plan, parts = plan_for(project)
    told = Told()
    good = await template_for(plan, parts, told)
    assert good is not None
    state = os.pread(good.state, 1 << 24, 0)
    good.close()
    templates.prune(0)
    shape = templates.shape_of(plan, parts.facts, parts.kernel, parts.base)
    with templates.saving(shape, "nonsense", told) as files:
        assert files is not None
        os.ftruncate(files[0], plan.machine.memory)
        os.write(files[1], state)
    async with start(plan, parts, told, restore_timeout=8) as sandbox:
        assert succeeded(await run(sandbox, "echo", "well")) == "well\n"
    assert len(told.warnings) == 1


async def test_a_store_that_cannot_be_written_means_a_boot(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_root", lambda: Path("/proc/nothing"))
    told = Told()
    plan, parts = plan_for(project)
    async with start(plan, parts, told) as sandbox:
        assert succeeded(await run(sandbox, "echo", "well")) == "well\n"
    assert len(told.warnings) == 1
    assert "no machine could be saved" in told.warnings[0]
