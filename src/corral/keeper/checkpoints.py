"""Checkpoints of kept sandboxes, and their forks: which there are, making them, going on from them.

sandboxes/NAME/checkpoints/TAG/   see `sandbox.saved`; with request.json, as it was then
sandboxes/NAME/checkpoints/.*     unfinished, or of a fork under way; see `leftovers`
sandboxes/NAME/workspace/         of a fork: its own copy of the workspace
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from ..errors import CheckpointError, HostError, UsageError
from ..host.copies import Hidden, copy_file, copy_folder, remove_tree
from ..images.locks import new_folder
from ..plan import Plan
from ..plan.trust import placeholders
from ..proc import crash_point
from ..sandbox import Parts, saved
from ..sandbox.checkpoint import in_thread
from ..sandbox.ports import any_ports
from ..spec import mask_matcher
from ..spec.files import write_atomically
from ..spec.text import printable
from ..spec.values import NAME_PATTERN
from .keeper import Box
from .model import Request, decode, encode
from .store import Record

FOLDER, WORKSPACE, DISK = "checkpoints", "workspace", "disk.qcow2"
_REQUEST = "request.json"
FORK = ".fork-"  # and the first copy's name
UNFINISHED = (".restored", ".new")  # of a disk: put back, or made (see `sandbox.disk`)
MAX_FORKS = 64
_SHOWN = 5


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that is there. created: seconds since 1970. size: bytes on the disk."""

    tag: str
    created: float
    size: int


def checked_tag(tag: str) -> str:
    """A checkpoint's name. Raises UsageError."""
    if not NAME_PATTERN.fullmatch(tag):
        raise UsageError(
            f"“{printable(tag, 60)}” is not a name for a checkpoint.",
            hint="Lower-case letters, digits and - are possible, up to 63, not - first.",
        )
    return tag


def new_tag() -> str:
    """A name after the time, when the user gives none."""
    return time.strftime("%Y%m%d-%H%M%S")


def listed(record: Record) -> list[Kept]:
    """A sandbox's checkpoints, the oldest first."""
    found = []
    root = record.folder / FOLDER
    for folder in root.iterdir() if root.is_dir() else ():
        manifest = saved.read(folder) if not folder.name.startswith(".") else None
        if manifest is not None:
            size = sum(file.lstat().st_blocks * 512 for file in folder.iterdir())
            found.append(Kept(tag=folder.name, created=manifest.created, size=size))
    return sorted(found, key=lambda kept: kept.created)


def find(record: Record, tag: str) -> Path:
    """The folder of a checkpoint. Raises CheckpointError when there is none."""
    folder = record.folder / FOLDER / checked_tag(tag)
    if not folder.is_dir():
        known = ", ".join(kept.tag for kept in listed(record)) or "none"
        raise CheckpointError(
            f"the sandbox {record.name} has no checkpoint {tag}.", hint=f"There are: {known}."
        )
    return folder


def request_of(folder: Path) -> Request:
    """What the sandbox was asked to be when the checkpoint was made. Raises CheckpointError."""
    try:
        return decode((folder / _REQUEST).read_bytes(), Request)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint in {folder} is damaged: {error}.") from error


def remove(record: Record, tag: str) -> None:
    """Remove a checkpoint. Raises CheckpointError."""
    folder = find(record, tag)
    hidden = folder.with_name(f".{folder.name}.removed")
    folder.rename(hidden)  # in one step: half of one is never found
    shutil.rmtree(hidden, ignore_errors=True)


class Saver:
    """Makes checkpoints and forks of the sandbox that a keeper has."""

    def __init__(self, record: Record, request: Request, plan: Plan, parts: Parts) -> None:
        self._record = record
        self._request = request
        self._plan = plan
        self._parts = parts

    async def checkpoint(self, box: Box, tag: str, *, replace: bool) -> None:
        """Keep the sandbox as it is now, under a tag. Raises CheckpointError, UsageError."""
        final = self._record.folder / FOLDER / checked_tag(tag)
        if final.exists() and not replace:
            raise CheckpointError(
                f"the sandbox {self._record.name} has a checkpoint {tag} already.",
                hint="Take another name, or replace it: --force.",
            )
        with _plain_errors():
            await self._save(box, final)

    async def fork(
        self,
        box: Box,
        names: Sequence[str],
        wanted: Callable[[], bool],
        run_on: Callable[[], Awaitable[None]],
    ) -> tuple[Path, str | None]:
        """Save it for copies under these names, each with its own copy of the workspace.

        wanted: asked again and again, by threads, too; once it says no, nothing is left of it all.
        run_on: called once the sandbox is not needed any more, so that it can stop meanwhile, say.
        Returns the checkpoint that they go on from, for the caller to remove, and what the user
        should know of the copies. Raises CheckpointError.
        """
        targets = self._targets(names)
        final = self._record.folder / FOLDER / f"{FORK}{names[0]}"
        begun = [final]
        left: list[str] = []

        def copy(source: str, target: Path, hidden: Hidden | None = None) -> list[str]:
            _check(wanted)
            begun.append(target)
            return copy_folder(source, str(target), _while(wanted, hidden))

        def copy_workspace() -> None:
            workspace = self._request.spec.workspace
            hidden = mask_matcher(workspace.mask) if workspace.mask else None
            crash_point("fork-copying")
            left.extend(copy(workspace.on_host, targets[0], hidden))

        try:
            _check(wanted)
            with _plain_errors():
                await self._save(box, final, copy_workspace, run_on)
                for target in targets[1:]:
                    await in_thread(functools.partial(copy, str(targets[0]), target))
            _check(wanted)
        except BaseException:
            await run_on()
            await in_thread(lambda: _discard(begun))
            raise
        return final, _not_copied(left)

    def _targets(self, names: Sequence[str]) -> list[Path]:
        """Where the copies' workspaces go. Raises CheckpointError."""
        if not 0 < len(names) <= MAX_FORKS:
            raise CheckpointError(f"a fork makes 1 to {MAX_FORKS} copies.")
        if self._outside():
            raise CheckpointError(
                "the workspace is a linked git worktree: its repository is elsewhere, and copies "
                "would share it.",
                hint="Fork a sandbox on a clone of its own (git clone).",
            )
        targets = [Record(name).folder / WORKSPACE for name in names]
        taken = [target for target in targets if target.exists()]
        if taken or len(set(names)) < len(names):
            raise CheckpointError(
                "each copy needs a name of its own that no sandbox has.",
                hint=f"In use: {taken[0]}" if taken else None,
            )
        return targets

    def _outside(self) -> list[str]:
        """What belongs to the workspace and lies outside of it: a worktree's repository."""
        parts = self._plan.agents[0].setup["parts"]
        assert isinstance(parts, list)
        spec = self._request.spec
        shares = [share.target for share in spec.shares]
        return [path for path in parts if path != spec.workspace.path and path not in shares]

    async def _save(
        self,
        box: Box,
        final: Path,
        meanwhile: Callable[[], None] | None = None,
        run_on: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        with new_folder(final) as staging, contextlib.ExitStack() as files:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            memory, state = (
                os.open(staging / name, flags, 0o600) for name in (saved.MEMORY, saved.STATE)
            )
            files.callback(os.close, memory)
            files.callback(os.close, state)
            disk: int | None = None
            if self._plan.disk:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                disk = os.open(self._record.folder / DISK, flags)
                files.callback(os.close, disk)

            def stopped() -> None:
                if disk is not None:
                    _copy(disk, staging / saved.DISK)
                if meanwhile is not None:
                    meanwhile()

            await box.save(memory, state, stopped)
            known = placeholders(box.plan)
            if run_on is not None:
                await run_on()
            write_atomically(staging / _REQUEST, encode(_asked(self._request)), mode=0o600)
            about = (self._record.name, time.time(), self._plan, self._parts, known)
            await in_thread(lambda: saved.describe(staging, *about))
            crash_point("checkpoint-written")


def _check(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise CheckpointError("the fork was given up: the sandbox ends, or nobody waits for it.")


def _while(wanted: Callable[[], bool], hidden: Hidden | None) -> Hidden:
    """What is hidden in a copy, which ends when it is not wanted any more."""

    def check(path: str, folder: bool) -> bool:
        _check(wanted)
        return hidden is not None and hidden(path, folder)

    return check


def _discard(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # who waited for it removes it, too
            remove_tree(folder)


def _asked(request: Request) -> Request:
    """As it was asked for: which snapshot is under review, each start finds anew."""
    spec = request.spec
    if not spec.reviewed:
        return request
    workspace = msgspec.structs.replace(spec.workspace, copy=None)
    agents = tuple(msgspec.structs.replace(agent, copy=None) for agent in spec.agents)
    spec = msgspec.structs.replace(spec, workspace=workspace, agents=agents)
    return msgspec.structs.replace(request, spec=spec)


def _not_copied(left: Sequence[str]) -> str | None:
    if not left:
        return None
    shown = ", ".join(printable(path) for path in left[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return f"not in the copies, as it cannot be read or is no plain file: {shown}{more}"


def put_back(disk: int, record: Record) -> None:
    """Have a checkpoint's disk, a descriptor, in place of the sandbox's. Raises HostError."""
    target = record.folder / DISK
    fresh = target.with_name(target.name + UNFINISHED[0])
    try:
        fresh.unlink(missing_ok=True)
        try:
            _copy(disk, fresh)
            fresh.rename(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HostError(
            f"the disk of the checkpoint cannot be copied: {error.strerror}.",
            hint="Free some space in the state folder (CORRAL_STATE_DIR).",
        ) from error


def _copy(source: int, target: Path) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    new = os.open(target, flags, 0o600)
    try:
        copy_file(source, new)
        os.fsync(new)
    finally:
        os.close(new)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be written: {error.strerror or error}. The sandbox runs on.",
            hint="Free some space, or set CORRAL_STATE_DIR to a folder on a larger disk.",
        ) from error


def free_names(name: str, count: int) -> list[str]:
    """NAME-1, NAME-2 ...: names that no sandbox has."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        candidate = f"{name[: 62 - len(str(number))]}-{number}"
        if not Record(candidate).exists():
            found.append(candidate)
    return found


def forked_request(request: Request, record: Record) -> Request:
    """What a fork is asked to be: as its source, under its own name, on its own workspace."""
    spec = request.spec
    workspace = msgspec.structs.replace(
        spec.workspace, copy=str(record.folder / WORKSPACE), review=False
    )
    network = any_ports(spec.network)
    agents = tuple(
        msgspec.structs.replace(agent, copy=None, workspace="together") for agent in spec.agents
    )
    spec = msgspec.structs.replace(
        spec, name=record.name, workspace=workspace, network=network, agents=agents
    )
    return msgspec.structs.replace(request, spec=spec, created=time.time())
