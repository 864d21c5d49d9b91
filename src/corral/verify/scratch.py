"""The folder that a verification works in: removed with it, or by the next one if it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "corral-verify-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new private folder, below the temporary one. Those that nobody uses any more are removed.

    Who uses one holds a flock(2) on it. Raises OSError when none can be made.
    """
    parent = Path(tempfile.gettempdir()).resolve()
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_if_abandoned(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _locked(folder)
        if lock is not None:  # else another verification took it for one that is left
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_if_abandoned(folder: Path) -> None:
    lock = _locked(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor of the folder, locked; None when it is in use, gone, or not ours."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(folder, flags)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(lock)
        if status.st_uid == os.getuid() and os.path.samestat(status, folder.lstat()):
            return lock
    except OSError:  # in use, or gone meanwhile
        pass
    os.close(lock)
    return None
