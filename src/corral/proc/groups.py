"""One sandbox's control group, below a group that is ours to divide. Standard library only.

Files: the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

PREFIX = "corral-"
OWN_LEAF = "corral-main"  # corral.host.cgroups
_WHERE_COUNTED = "memory.swap.max"  # only there where the kernel accounts for swap, as most do


class Group:
    """A control group. Every method raises OSError with the file concerned."""

    def __init__(
        self, base: str, name: str, controllers: Sequence[str], files: Sequence[tuple[str, str]]
    ) -> None:
        self._base = Path(base)
        self._controllers = controllers
        self._files = files
        self.folder = self._base / f"{PREFIX}{name}"
        self._lock = -1  # held while it is used: others sweep what nobody holds

    def make(self) -> None:
        """Make it, with its limits."""
        self._sweep()
        self._enable()
        self._lock = self._made()
        try:
            for name, text in self._files:
                with contextlib.suppress(*((FileNotFoundError,) if name == _WHERE_COUNTED else ())):
                    _write(self.folder / name, text)
        except OSError:
            with contextlib.suppress(OSError):  # the first error says more
                self.remove()
            raise

    def add(self, pid: int) -> None:
        """Move a process into it; its children will be born there."""
        _write(self.folder / "cgroup.procs", str(pid))

    def remove(self) -> None:
        """Remove it; nothing may live in it any more."""
        os.close(self._lock)
        self.folder.rmdir()

    def _made(self) -> int:
        """Make the folder; a descriptor that holds its lock."""
        while True:
            self.folder.mkdir()
            try:
                lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # swept in between
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.folder.is_dir():
                return lock
            os.close(lock)

    def _enable(self) -> None:
        control = self._base / "cgroup.subtree_control"
        enabled = control.read_text().split()
        lacking = [name for name in self._controllers if name not in enabled]
        if not lacking:
            return
        # A group that divides what it has may have no process itself: this one, alone there, moves.
        leaf = self._base / OWN_LEAF
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", str(os.getpid()))
        _write(control, " ".join(f"+{name}" for name in lacking))

    def _sweep(self) -> None:
        """Remove groups whose sandbox was killed together with corral."""
        for folder in self._base.glob(f"{PREFIX}*"):
            if folder.name != OWN_LEAF:
                with contextlib.suppress(OSError):  # in use, or about to be
                    self._sweep_one(folder)

    @staticmethod
    def _sweep_one(folder: Path) -> None:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rmdir()
        finally:
            os.close(lock)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)
