"""The folder of one running sandbox: private, locked while it is in use, gone afterwards.

Nothing in it is needed to end a sandbox: what is left after a power cut is swept at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import HostError
from ..paths import run_root

_UNFINISHED = ".new-"
_PATIENCE = 60.0  # seconds that a folder may exist before its lock does


@contextlib.contextmanager
def run_folder(name: str, *, keep: bool = False) -> Iterator[Path]:
    """A new folder for the sandbox `name`, with the empty file `empty` and the folder `sockets`.

    Removed on leaving, unless `keep`. Raises HostError when it cannot be made.
    """
    root = run_root()
    token = secrets.token_hex(3)
    unfinished, final = root / f"{_UNFINISHED}{token}", root / f"{name[:24]}-{token}"
    try:
        unfinished.mkdir(mode=0o700)
        lock = os.open(unfinished / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (unfinished / "empty").touch(mode=0o444)
        (unfinished / "sockets").mkdir(mode=0o700)
        unfinished.rename(final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise HostError(
            f"cannot make a run folder in {root}: {error.strerror}.",
            hint="Free some space there, or set XDG_RUNTIME_DIR to a folder of yours.",
        ) from error
    try:
        yield final
    finally:
        if not keep:
            shutil.rmtree(final, ignore_errors=True)
        os.close(lock)


def sweep() -> list[Path]:
    """Remove run folders whose sandbox is gone; returns them."""
    removed = []
    for folder in run_root().iterdir():
        if folder.is_dir() and not folder.is_symlink() and _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > _PATIENCE
        return False
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
