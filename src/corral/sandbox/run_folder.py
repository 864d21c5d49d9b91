"""The folder of one running sandbox: private, locked while it is in use, gone afterwards.

Nothing in it is needed to end a sandbox. The warden removes it when corral is killed; what is left
after a power cut is swept at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import HostError
from ..paths import run_root
from ..proc import crash_point

_UNFINISHED = ".new-"
_LOCK = "lock"


@contextlib.contextmanager
def run_folder(name: str, *, keep: bool = False) -> Iterator[Path]:
    """A new folder for the sandbox `name`, with the empty file `empty` and the folder `sockets`.

    Removed on leaving, unless `keep`. Raises HostError when it cannot be made.
    """
    root = run_root()
    token = secrets.token_hex(3)
    unfinished, final = root / f"{_UNFINISHED}{token}", root / f"{name[:24]}-{token}"
    try:
        with _locked(root, fcntl.LOCK_SH):  # while anyone has it, unfinished folders are in use
            unfinished.mkdir(mode=0o700)
            crash_point("run-folder-unfinished")
            lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            crash_point("run-folder-locked")
            (unfinished / "empty").touch(mode=0o444)
            (unfinished / "sockets").mkdir(mode=0o700)
            unfinished.rename(final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise HostError(
            f"cannot make a run folder in {root}: {error.strerror}.",
            hint="Free some space there, or set XDG_RUNTIME_DIR to a folder of yours.",
        ) from error
    crash_point("run-folder-made")
    try:
        yield final
    finally:
        if keep:
            # Without its lock it is nobody's: only `sweep(kept=True)` removes it.
            (final / _LOCK).unlink(missing_ok=True)
        else:
            shutil.rmtree(final, ignore_errors=True)
        os.close(lock)


def sweep(*, kept: bool = False, dry_run: bool = False) -> list[Path]:
    """Remove run folders whose sandbox is gone; returns them.

    kept: also those kept on purpose. dry_run: only find them.
    """
    root = run_root()
    abandoned: list[Path] = []
    with contextlib.suppress(BlockingIOError), _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
        abandoned += root.glob(f"{_UNFINISHED}*")  # nobody is about to finish one
    for folder in root.iterdir():
        if not folder.name.startswith(_UNFINISHED) and folder.is_dir() and not folder.is_symlink():
            state = _state(folder)
            if state == "abandoned" or (kept and state == "kept"):
                abandoned.append(folder)
    if not dry_run:
        for folder in abandoned:
            shutil.rmtree(folder, ignore_errors=True)
    return abandoned


def _state(folder: Path) -> str:
    """What a finished run folder is: `used`, `abandoned`, `kept`; used as well if in doubt."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return "kept"
    except OSError:
        return "used"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "used"
    finally:
        os.close(lock)
    return "abandoned"


@contextlib.contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    """Hold a flock(2) on a folder; the kernel drops it when this process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
