"""Checkpoints on disk: whole or not there, believed only as they were written."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest import mock

import msgspec
import pytest

from corral.errors import (
    CheckpointError,
    CommandNotFoundError,
    HostError,
    SandboxStateError,
    UsageError,
)
from corral.images.watched import FileState
from corral.keeper import checkpoints
from corral.keeper.checkpoints import Saver, find, listed, remove, request_of
from corral.keeper.client import connect
from corral.keeper.keeper import Box
from corral.keeper.leftovers import sweep
from corral.keeper.life import _Life
from corral.keeper.model import Request
from corral.keeper.store import Record
from corral.plan import Plan
from corral.sandbox import Parts, saved
from corral.sandbox.checkpoint import in_thread
from corral.templates import Shape
from tests.support import examples

from .conftest import Kept


class SavingBox:
    """Stands for a sandbox that is saved. full: there is no room on the disk."""

    plan = examples.plan()

    def __init__(self, *, full: bool = False) -> None:
        self.full = full

    async def save(
        self, memory: int, state: int, meanwhile: Callable[[], None] | None = None
    ) -> None:
        os.ftruncate(memory, 4 << 20)
        os.pwrite(memory, b"memory", 2 << 20)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.write(state, b"state")
        if meanwhile is not None:
            await in_thread(meanwhile)


SHAPE = Shape(
    format=1,
    arguments=("-m", "1"),
    qemu=("qemu",),
    qemu_version="10.0.13",
    qemu_files=(),
    kernel=FileState("/vmlinux", 1, 1),
    kernel_release="6.1",
    base="base",
    jails=(),
    processor="",
)


class Made:
    """A sandbox that is kept on a workspace with one file, and what saves it."""

    def __init__(self, record: Record, request: Request, parts: Parts) -> None:
        self.record, self.request = record, request
        wanted = examples.spec(workspace={"path": request.spec.workspace.path})
        self.plan: Plan = examples.plan(wanted, found=examples.layout(path=wanted.workspace.path))
        self.parts = parts
        self.saver = Saver(record, request, self.plan, parts)
        self.root = record.folder / checkpoints.FOLDER
        self.disk = record.folder / checkpoints.DISK

    def with_disk(self) -> None:
        """From now on it has one."""
        self.plan = msgspec.structs.replace(self.plan, disk=1 << 20)
        self.saver = Saver(self.record, self.request, self.plan, self.parts)
        self.disk.write_bytes(b"disk as it was")

    async def checkpoint(self, tag: str, box: SavingBox | None = None, **how: bool) -> None:
        await self.saver.checkpoint(as_box(box or SavingBox()), tag, **{"replace": False, **how})

    async def fork(
        self, names: Sequence[str], box: SavingBox | None = None
    ) -> tuple[Path, str | None]:
        return await self.saver.fork(as_box(box or SavingBox()), names, lambda: True, nothing)

    def open(self, tag: str, plan: Plan | None = None) -> None:
        """As a keeper does that goes on from it."""
        life = SimpleNamespace(
            _checkpoint=find(self.record, tag),
            _plan=plan or self.plan,
            _parts=self.parts,
            _record=self.record,
        )
        with contextlib.ExitStack() as going:
            template = _Life._saved(cast("_Life", life), going)
            assert template is not None
            assert os.pread(template.memory, 6, 2 << 20) == b"memory"
            assert os.read(template.state, 10) == b"state"


async def nothing() -> None:
    """Nobody waits for the sandbox to run on."""


def as_box(box: SavingBox) -> Box:
    return cast("Box", box)


@pytest.fixture
def made(
    record: Record, request_kept: Request, monkeypatch: pytest.MonkeyPatch, project: Path
) -> Made:
    (project / "file").write_text("of the workspace")
    monkeypatch.setattr(saved, "_shape", lambda _plan, _parts: SHAPE)
    return Made(record, request_kept, cast("Parts", None))


async def test_a_checkpoint_is_there_with_what_it_was_asked_for(made: Made) -> None:
    await made.checkpoint("one")
    await made.checkpoint("two")
    assert [each.tag for each in listed(made.record)] == ["one", "two"]
    assert request_of(find(made.record, "one")) == made.request
    made.open("one")
    assert listed(made.record)[0].size < 1 << 20, "holes take no room"
    assert made.record.folder.stat().st_mode & 0o777 == 0o700


async def test_a_tag_is_not_used_twice_unless_that_is_said(made: Made) -> None:
    await made.checkpoint("one")
    with pytest.raises(CheckpointError, match="already"):
        await made.checkpoint("one")
    await made.checkpoint("one", replace=True)
    assert [each.tag for each in listed(made.record)] == ["one"]


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", ".hidden", "UPPER", "-f", "x" * 64, "a\n"])
async def test_a_tag_is_a_plain_name(made: Made, tag: str) -> None:
    with pytest.raises(UsageError):
        await made.checkpoint(tag)
    with pytest.raises(UsageError):
        find(made.record, tag)


async def test_what_fails_leaves_nothing_and_what_was_there_stays(made: Made) -> None:
    await made.checkpoint("one")
    for tag, replace in (("one", True), ("two", False)):
        with pytest.raises(CheckpointError, match=r"No space left.*runs on") as caught:
            await made.checkpoint(tag, SavingBox(full=True), replace=replace)
        assert caught.value.hint
    assert [entry.name for entry in made.root.iterdir()] == ["one"]
    made.open("one")


async def test_what_was_left_half_way_is_not_found_and_swept(made: Made) -> None:
    (made.root / ".one.abc").mkdir(parents=True)
    (made.root / ".fork-box-1").mkdir()
    (made.root / "no-manifest").mkdir()
    assert listed(made.record) == []
    sweep(made.record)
    assert [entry.name for entry in made.root.iterdir()] == ["no-manifest"]
    with pytest.raises(CheckpointError, match="damaged"):
        made.open("no-manifest")


@pytest.mark.parametrize("file", ["memory", "state", "disk.qcow2", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "a link"])
async def test_a_damaged_checkpoint_is_refused(made: Made, file: str, damage: str) -> None:
    made.with_disk()
    await made.checkpoint("one")
    made.disk.write_bytes(b"disk as it is now")
    path = find(made.record, "one") / file
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "changed":
        path.write_bytes(
            content.replace(b"memory", b"yromem")
            .replace(b"state", b"etats")
            .replace(b"disk as", b"ksid as")
        )
    elif damage == "a link":
        (path.parent / "elsewhere").write_bytes(content[:-1])
        path.symlink_to("elsewhere")
    with pytest.raises(CheckpointError) as caught:
        made.open("one")
    assert caught.value.hint
    assert made.disk.read_bytes() == b"disk as it is now", "what is good is not given up for it"


async def test_a_disk_is_put_back(made: Made) -> None:
    made.with_disk()
    await made.checkpoint("one")
    made.disk.write_bytes(b"disk as it is now")
    made.open("one")
    assert made.disk.read_bytes() == b"disk as it was"


async def test_a_checkpoint_whose_disk_was_not_saved_is_refused(made: Made) -> None:
    await made.checkpoint("one")
    with pytest.raises(CheckpointError, match="damaged"):
        made.open("one", msgspec.structs.replace(made.plan, disk=1 << 20))


async def test_a_disk_that_cannot_be_put_back_leaves_nothing_half(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.with_disk()
    await made.checkpoint("one")
    made.disk.write_bytes(b"disk as it is now")

    def full(_source: int, target: int) -> None:
        os.write(target, b"disk")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "copy_file", full)
    with pytest.raises(HostError, match="No space left"):
        made.open("one")
    assert made.disk.read_bytes() == b"disk as it is now"
    assert not list(made.record.folder.glob("disk.qcow2.*"))


async def test_zeros_that_became_a_hole_are_no_damage(made: Made) -> None:
    await made.checkpoint("one")
    path = find(made.record, "one") / "memory"
    content = path.read_bytes()
    path.write_bytes(content)  # no holes any more
    made.open("one")


def test_a_cache_that_was_cleared_and_filled_again_makes_no_other_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = FileState("/cache/qemu", 1, 1)
    again = [
        msgspec.structs.replace(
            SHAPE, qemu_files=(FileState("/cache/qemu", 1, time),), kernel=FileState("/k", 1, time)
        )
        for time in (1, 2)
    ]
    other = msgspec.structs.replace(again[0], qemu_version="10.1.0", qemu_files=(fetched,))
    shapes = [*again, other]
    monkeypatch.setattr(saved, "shape_of", lambda *_parts: shapes.pop(0))
    found = [saved._shape(examples.plan(), cast("Parts", mock.Mock())) for _ in range(3)]
    assert found[0] == found[1] != found[2]


async def test_another_machine_is_named_and_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made.checkpoint("one")
    other = msgspec.structs.replace(SHAPE, qemu_version="11.0.0", base="other")
    monkeypatch.setattr(saved, "_shape", lambda _plan, _parts: other)
    with pytest.raises(CheckpointError, match="qemu version, base changed"):
        made.open("one")


async def test_other_folders_are_refused(made: Made) -> None:
    await made.checkpoint("one")
    with pytest.raises(CheckpointError, match="other folders"):
        made.open("one", examples.plan())


async def test_a_checkpoint_can_be_removed(made: Made) -> None:
    await made.checkpoint("one")
    remove(made.record, "one")
    assert list(made.root.iterdir()) == []
    with pytest.raises(CheckpointError, match="no checkpoint one") as caught:
        remove(made.record, "one")
    assert caught.value.hint == "There are: none."


# Forks


async def test_each_copy_gets_the_workspace(made: Made, project: Path) -> None:
    os.mkfifo(project / "pipe")
    names = [f"{made.record.name}-copy-{number}" for number in (1, 2)]
    for name in names:
        Record(name).folder.mkdir()  # as its lock does
    folder, notice = await made.fork(names)
    assert notice is not None and "pipe" in notice
    for name in names:
        copied = Record(name)
        assert not copied.exists(), "that is for who asked for it"
        workspace = copied.folder / checkpoints.WORKSPACE
        assert (workspace / "file").read_text() == "of the workspace"
        wanted = checkpoints.forked_request(made.request, copied).spec
        assert (wanted.name, wanted.workspace.on_host) == (name, str(workspace))
        assert wanted.workspace.path == made.request.spec.workspace.path
    assert listed(made.record) == [] and saved.read(folder) is not None


async def test_a_fork_that_fails_leaves_nothing(made: Made) -> None:
    name = f"{made.record.name}-none"
    with pytest.raises(CheckpointError, match="runs on"):
        await made.fork([name], SavingBox(full=True))
    assert not (Record(name).folder / checkpoints.WORKSPACE).exists()
    assert list(made.root.iterdir()) == []


@pytest.mark.parametrize("count", [0, 65])
async def test_a_fork_makes_a_number_of_copies(made: Made, count: int) -> None:
    with pytest.raises(CheckpointError, match="1 to 64"):
        await made.fork([f"n-{number}" for number in range(count)])


async def test_another_sandboxs_workspace_is_not_touched(made: Made) -> None:
    name = f"{made.record.name}-there"
    there = Record(name).folder / checkpoints.WORKSPACE
    there.mkdir(parents=True)
    (there / "precious").touch()
    for names in ([name], [f"{name}-new", name], [f"{name}-same", f"{name}-same"]):
        with pytest.raises(CheckpointError, match="a name of its own"):
            await made.fork(names)
    assert (there / "precious").exists()


def test_names_of_copies_are_free_and_short_enough(record: Record, request_kept: Request) -> None:
    assert checkpoints.free_names("named", 2) == ["named-1", "named-2"]
    with Record("named-1").changing():
        Record("named-1").write_request(request_kept)
    assert checkpoints.free_names("named", 2) == ["named-2", "named-3"]
    (long,) = checkpoints.free_names("x" * 63, 1)
    assert len(long) <= 63 and long.endswith("-1")


# While it is saved


class SlowSaver:
    """One that takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def checkpoint(self, _box: Box, _tag: str, *, replace: bool) -> None:
        self.begun.set()
        await self.go_on.wait()
        if replace:
            raise CheckpointError("the disk is full.")

    async def fork(
        self,
        box: Box,
        names: Sequence[str],
        wanted: Callable[[], bool],
        run_on: Callable[[], Awaitable[None]],
    ) -> tuple[Path, str | None]:
        await self.checkpoint(box, names[0], replace=False)
        return Path("/state/fork"), "not in the copies: pipe"


@pytest.mark.parametrize("fails", [False, True])
async def test_commands_and_pauses_wait_until_it_is_saved(kept: Kept, fails: bool) -> None:
    saver = kept.keeper.saver = SlowSaver()
    async with connect(kept.name) as client:
        saving = asyncio.create_task(client.checkpoint("one", replace=fails))
        await saver.begun.wait()
        command = asyncio.create_task(client.exec(["true"]))
        pause = asyncio.create_task(client.pause())
        done, _waiting = await asyncio.wait((command, pause, saving), timeout=0.1)
        assert not done and kept.box.calls == []
        saver.go_on.set()
        if fails:
            with pytest.raises(CheckpointError, match="the disk is full"):
                await saving
        else:
            await saving
        # Both were waiting; which is first is nobody's business.
        await asyncio.wait((command, pause))
        assert pause.exception() is None
        # It arrived: the scripted sandbox knows no such command, or is halted already.
        assert isinstance(command.exception(), CommandNotFoundError | SandboxStateError)


async def test_a_fork_tells_where_it_is_saved_and_what_is_missing(kept: Kept) -> None:
    saver = kept.keeper.saver = SlowSaver()
    saver.go_on.set()
    async with connect(kept.name) as client:
        forked = await client.fork(["copy"])
    assert (forked.folder, forked.notice) == ("/state/fork", "not in the copies: pipe")


async def test_one_that_cannot_be_saved_says_so(kept: Kept) -> None:
    async with connect(kept.name) as client:
        with pytest.raises(SandboxStateError, match="cannot be saved"):
            await client.checkpoint("one")


# While copies are made of what is saved


class Copies:
    """Copies of a folder that take as long as the test wants; a stop is seen with each entry."""

    def __init__(self) -> None:
        self.begun: list[Path] = []
        self.go_on = threading.Event()
        self.slow = 0  # the first that takes long, from 1
        self.looks = True
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, _source: str, target: str, hidden: Callable[[str, bool], bool]) -> list[str]:
        folder = Path(target)
        folder.mkdir(parents=True)
        (folder / "file").touch()
        self.begun.append(folder)
        self._loop.call_soon_threadsafe(self.changed.set)
        while len(self.begun) >= self.slow and not self.go_on.wait(0.01):
            if self.looks:
                hidden("file", False)
        return []

    async def until(self, count: int) -> None:
        """So many have begun."""
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                self.changed.clear()
                await self.changed.wait()

    def left(self, made: Made) -> list[Path]:
        return [path for path in (*self.begun, *made.root.glob("[.]*")) if path.exists()]


@pytest.fixture
async def copies(made: Made, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Copies]:
    """Of a keeper whose sandbox can be saved."""
    found = Copies()
    monkeypatch.setattr(checkpoints, "copy_folder", found)
    monkeypatch.setattr(kept.box, "save", SavingBox().save)
    monkeypatch.setattr(kept.box, "plan", SavingBox.plan, raising=False)
    kept.keeper.saver = made.saver
    kept.keeper.grace = 0
    yield found
    found.go_on.set()


def named(kept: Kept) -> list[str]:
    return [f"{kept.name}-c{number}" for number in (1, 2, 3)]


async def gone(condition: Callable[[], object]) -> None:
    """Wait until it is so no more."""
    async with asyncio.timeout(10):
        while condition():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)


async def test_a_sandbox_runs_on_while_further_copies_are_made(kept: Kept, copies: Copies) -> None:
    copies.slow = 2
    async with connect(kept.name) as client, asyncio.timeout(10):
        fork = asyncio.create_task(client.fork(named(kept)))
        await copies.until(2)
        with pytest.raises(CommandNotFoundError):  # it arrived
            await client.exec(["true"])
        await client.pause()
        await client.resume()
        assert not fork.done()
        copies.go_on.set()
        forked = await fork
    assert forked.notice is None and len(copies.begun) == 3


@pytest.mark.parametrize("slow", [1, 2])
async def test_a_sandbox_that_is_stopped_does_not_wait_for_copies(
    made: Made, kept: Kept, copies: Copies, slow: int
) -> None:
    copies.slow = slow
    async with connect(kept.name) as client:
        fork = asyncio.create_task(client.fork(named(kept)))
        await copies.until(slow)
        await client.stop(0)
        async with asyncio.timeout(5):
            await kept.keeper.wind_down()
            with pytest.raises(CheckpointError, match="given up"):
                await fork
    assert len(copies.begun) == slow and copies.left(made) == []


@pytest.mark.parametrize("slow", [1, 2])
async def test_copies_that_nobody_waits_for_are_removed_also_what_is_saved(
    made: Made, kept: Kept, copies: Copies, slow: int
) -> None:
    copies.slow = slow
    async with connect(kept.name) as client:
        fork = asyncio.create_task(client.fork(named(kept)))
        await copies.until(slow)
        fork.cancel()
    await gone(lambda: copies.left(made))
    assert kept.keeper.state == "running"
    copies.slow = 4 + slow
    async with connect(kept.name) as client, asyncio.timeout(10):
        await client.fork(named(kept))  # the names are free


async def test_copies_that_are_whole_when_nobody_waits_any_more_are_removed(
    made: Made, kept: Kept, copies: Copies
) -> None:
    copies.slow, copies.looks = 3, False
    async with connect(kept.name) as client:
        fork = asyncio.create_task(client.fork(named(kept)))
        await copies.until(3)
        fork.cancel()
    await gone(lambda: kept.server.clients)
    copies.go_on.set()
    await gone(lambda: copies.left(made))


async def test_one_fork_is_made_after_the_other(made: Made, kept: Kept, copies: Copies) -> None:
    """What is removed of one that was given up is never another's."""
    copies.slow = 2
    async with connect(kept.name) as client, connect(kept.name) as other:
        first = asyncio.create_task(client.fork(named(kept)))
        await copies.until(2)
        second = asyncio.create_task(other.fork([f"{kept.name}-d"]))
        done, _waiting = await asyncio.wait((first, second), timeout=0.1)
        assert not done and len(copies.begun) == 2
        copies.go_on.set()
        await asyncio.gather(first, second)
    assert len(copies.begun) == 4
