"""A sandbox's copy, from the moment that it is saved until it goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from ..errors import CheckpointError
from ..events import Report
from ..host.copies import copy_folder, remove_tree
from ..paths import state_dir
from ..plan import Plan
from ..plan.trust import placeholders
from ..sandbox import Parts, Sandbox, make_plan, start
from ..sandbox.ports import any_ports
from ..spec import Spec, mask_matcher
from ..templates import Template


class Origin:
    """A machine that is saved in memory, and the copy of its workspace.

    folder: the copy. own: the folder of ours around it, removed at the end; None: it is the user's.
    """

    def __init__(self, spec: Spec, parts: Parts, folder: Path, own: OwnFolder | None) -> None:
        self.folder = folder
        self.spec = spec
        self._parts = parts
        self._own = own
        self._placeholders: dict[str, str] = {}
        self._memory = os.memfd_create("corral-fork", os.MFD_CLOEXEC)
        self._state = os.memfd_create("corral-fork", os.MFD_CLOEXEC)

    @classmethod
    async def of(
        cls, sandbox: Sandbox, spec: Spec, parts: Parts, name: str, workspace: Path | None
    ) -> Origin:
        """Save a sandbox that runs. workspace: where its copy goes; None: a folder of ours.

        Raises CheckpointError, and the sandbox runs on.
        """
        outside = sandbox.plan.agents[0].setup["parts"]
        shares = [share.target for share in spec.shares]
        if any(part not in (spec.workspace.path, *shares) for part in _texts(outside)):
            raise CheckpointError(
                "the workspace is a linked git worktree: its repository is elsewhere, and copies "
                "would share it.",
                hint="Fork a sandbox on a clone of its own (git clone).",
            )
        own = OwnFolder() if workspace is None else None
        folder = own.path / "workspace" if own else _real(workspace or Path())
        copied = msgspec.structs.replace(spec.workspace, copy=str(folder), review=False)
        network = any_ports(spec.network)
        agents = tuple(
            msgspec.structs.replace(agent, copy=None, workspace="together") for agent in spec.agents
        )
        changed = msgspec.structs.replace(
            spec, name=name, workspace=copied, network=network, agents=agents
        )
        origin = cls(changed, parts, folder, own)
        origin._placeholders = placeholders(sandbox.plan)
        hidden = mask_matcher(spec.workspace.mask) if spec.workspace.mask else None

        def copy() -> None:
            copy_folder(spec.workspace.on_host, str(folder), hidden)

        try:
            await sandbox.save(origin._memory, origin._state, copy)
        except BaseException:
            origin.close()
            raise
        return origin

    def plan(self) -> Plan:
        """What the copy is to be."""
        return make_plan(self.spec, self._parts.facts, dict(os.environ))

    @contextlib.asynccontextmanager
    async def going_on(self, plan: Plan, report: Report) -> AsyncIterator[Sandbox]:
        """The copy, running; on leaving, nothing of it is left but a workspace of the user's."""
        with self._saved() as saved:
            async with start(plan, self._parts, report, saved=saved) as sandbox:
                yield sandbox

    @contextlib.contextmanager
    def _saved(self) -> Iterator[Template]:
        try:
            os.lseek(self._state, 0, os.SEEK_SET)
            yield Template("fork", self._memory, self._state, self._placeholders)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what is saved, and of the workspace if it is ours."""
        for fd in (self._memory, self._state):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._memory = self._state = -1
        if self._own is not None:
            self._own.close()


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


class OwnFolder:
    """A new folder below the state folder, locked while it is in use.

    Those that a killed process has left are removed when the next one is made.
    """

    def __init__(self) -> None:
        root = state_dir() / "forks"
        root.mkdir(mode=0o700, exist_ok=True)
        with contextlib.closing(_Locked(root)) as all_of_them:
            all_of_them.wait()
            for folder in root.iterdir():
                with contextlib.suppress(FileNotFoundError):  # its owner removes it just now
                    _remove_left(folder)
            self.path = Path(tempfile.mkdtemp(prefix="fork-", dir=root)).resolve()
            self._lock = _Locked(self.path)
            self._lock.wait()

    def close(self) -> None:
        """Remove it."""
        _remove(self.path)
        self._lock.close()


class _Locked:
    """flock(2) on a folder; the kernel drops it when this process ends."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def wait(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def is_free(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)


def _remove_left(folder: Path) -> None:
    with contextlib.closing(_Locked(folder)) as left:
        if left.is_free():
            _remove(folder)


def _remove(folder: Path) -> None:
    if (folder / "workspace").is_dir():
        remove_tree(folder / "workspace")
    shutil.rmtree(folder, ignore_errors=True)


def _real(path: Path) -> Path:
    return path.resolve()
