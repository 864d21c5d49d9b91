"""A sandbox's copy, from the moment that it is saved until it goes on."""

from __future__ import annotations

import contextlib
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
from ..sandbox import Parts, Sandbox, make_plan, start
from ..spec import Spec, mask_matcher
from ..templates import Template


class Origin:
    """A machine that is saved in memory, and the copy of its workspace.

    folder: the copy; removed at the end if it is ours.
    """

    def __init__(self, spec: Spec, parts: Parts, folder: Path, *, ours: bool) -> None:
        self.folder = folder
        self.spec = spec
        self._parts = parts
        self._ours = ours
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
        folder = _new_folder() / "workspace" if workspace is None else _real(workspace)
        own = msgspec.structs.replace(spec.workspace, copy=str(folder))
        origin = cls(
            msgspec.structs.replace(spec, name=name, workspace=own),
            parts,
            folder,
            ours=workspace is None,
        )
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
            yield Template("fork", self._memory, self._state)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what is saved, and of the workspace if it is ours."""
        for fd in (self._memory, self._state):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._memory = self._state = -1
        if self._ours:
            if self.folder.is_dir():
                remove_tree(self.folder)
            shutil.rmtree(self.folder.parent, ignore_errors=True)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _new_folder() -> Path:
    root = state_dir() / "forks"
    root.mkdir(mode=0o700, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="fork-", dir=root)).resolve()


def _real(path: Path) -> Path:
    return path.resolve()
