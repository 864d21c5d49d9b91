"""Locks between corral processes of one user, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import paths
from ..errors import ImageError

LOCKS = "locks"  # a folder in the cache


@contextmanager
def locked(name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock called `name` (in the cache folder) for the length of the block.

    The kernel drops it when the process ends, however it ends (flock(2)). The file stays: removing
    it would let two processes hold locks on two files of the same name. `waiting` is called once
    when another process has it. What is done under a lock is work on the cache, so an OSError in
    the block is reported as one of the cache: an ImageError.
    """
    try:
        folder = paths.cache_dir() / LOCKS
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise cache_failure(error) from error


def cache_failure(error: OSError) -> ImageError:
    """What to tell the user of an error while reading or writing the cache."""
    where = f" ({error.filename})" if error.filename else ""
    hint = "Set CORRAL_CACHE_DIR to a folder that you can write."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = (
            "Free some space (`corral gc` clears the cache), or set CORRAL_CACHE_DIR to a folder "
        )
        hint += "on a larger disk."
    return ImageError(f"the cache cannot be used: {error.strerror or error}{where}.", hint=hint)


def write_file(path: Path, chunks: Iterable[bytes], mode: int = 0o600) -> None:
    """Write `path` so that it is there with all of its content or as it was before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - the name, not a Path, came from mkstemp
        raise
    _sync_folder(path.parent)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that becomes `final` (replacing it) when the block ends well.

    Call it under a lock. What is in it is on the disk before the name appears.
    """
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(final)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        _sync_file_system(temporary)
        if final.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
            final.rename(old)
            temporary.rename(final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(final.parent)


def remove_leftovers(final: Path) -> None:
    """Remove what runs left that were killed while they made `final`. Call it under a lock."""
    for stale in final.parent.glob(f".{final.name}.*"):
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def need_space(folder: Path, size: int, purpose: str) -> None:
    """Raise ImageError unless `size` bytes are free for this user where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ImageError(
            f"{purpose} needs {mebibytes(size)} in {folder}; {mebibytes(free)} are free.",
            hint="Free some space (`corral gc` clears the cache), or set CORRAL_CACHE_DIR to a "
            "folder on a larger disk.",
        )


def mebibytes(size: int) -> str:
    """`size` bytes for a person, rounded up to whole MiB."""
    return f"{-(-size // (1 << 20))} MiB"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(folder: Path) -> None:
    """syncfs(2): thousands of small files in one call, where fsync would take one call each."""
    import ctypes  # only when something was downloaded

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def clear_cache(folder: Path, *, dry_run: bool, keep: Collection[str] = ()) -> int:
    """Remove everything in the cache folder but `keep`; returns how many bytes that frees."""
    freed = 0
    for entry in folder.iterdir():
        if entry.name.startswith("venv-") or entry.name in keep:
            continue  # the launcher's: what runs this very process
        if entry.is_dir() and not entry.is_symlink():
            freed += sum(file.lstat().st_blocks * 512 for file in entry.rglob("*"))
            if not dry_run:
                shutil.rmtree(entry, ignore_errors=True)
        else:
            freed += entry.lstat().st_blocks * 512
            if not dry_run:
                entry.unlink(missing_ok=True)
    return freed
