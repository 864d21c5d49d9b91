"""Putting files where they belong, so that each is the old one or the new one at every moment.

Everything goes by descriptor below one folder, and no link is followed. What is there is never
overwritten unseen: it is exchanged for the new file in one step (renameat2(2)), looked at, and put
back when it is not what it was thought to be.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..host.copies import entered
from ..proc import crash_point
from .compare import ABOVE, RESERVED
from .model import Found, Was
from .pack import Pack
from .tree import look

_NOREPLACE, _EXCHANGE = 1, 2  # linux/fs.h, RENAME_*
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}.get(platform.machine())  # asm/unistd.h
_MISSING = (errno.ENOSYS, errno.EINVAL)  # of the kernel, or of this file system
_FEW = 32  # files that are synced one by one
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Allowed = Callable[[int, str], bool]  # whether what a name is in an open folder may go


class BlockedError(Exception):
    """A name cannot be changed as things are now. reason: why, for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Place:
    """A folder in which files are put. pack: where their contents come from."""

    def __init__(self, root: int, pack: Pack) -> None:
        self._root = root
        self._pack = pack
        self._umask = _umask()
        self._few = True
        self._touched: set[str] = set()

    def expect(self, count: int) -> None:
        """So many files will be prepared: few are synced one by one, many all at once."""
        self._few = count <= _FEW

    def prepare(self, path: str, was: Was, mode: int | None = None) -> None:
        """Write a file or link under a name beside its own. mode: where there is none yet.

        Raises BlockedError, OSError.
        """
        with self._folder_of(path, make=True) as (folder, name):
            beside = temporary(path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=folder)
            if was.kind == "link":
                os.symlink(was.link, os.fsencode(beside), dir_fd=folder)
                return
            there = _status(folder, name)
            fd = os.open(beside, _NEW, 0o600, dir_fd=folder)
            try:
                self._pack.write_to(fd, was.offset, was.size)
                if there is not None:
                    with contextlib.suppress(PermissionError):
                        os.fchown(fd, there.st_uid, there.st_gid)
                os.fchmod(fd, self._mode(was, there, mode))
                if self._few:
                    os.fsync(fd)
            finally:
                os.close(fd)

    def _mode(self, was: Was, there: os.stat_result | None, mode: int | None) -> int:
        """As it is, but for the right to execute, which is the change's."""
        executable = was.side.executable
        if there is None:
            if mode is None:
                mode = (0o777 if executable else 0o666) & ~self._umask
            return mode & 0o777
        bits = there.st_mode & 0o777
        if bool(bits & 0o100) == executable:
            return bits
        return bits | (bits & 0o444) >> 2 if executable else bits & ~0o111

    def commit(self, path: str, allowed: Allowed) -> None:
        """Let what was prepared take its place. allowed: asked before, and of what was taken out.

        Raises BlockedError, OSError; then it is as it was.
        """
        with self._folder_of(path) as (folder, name):
            beside = temporary(path)
            ours = look(folder, beside)
            try:
                self._commit(folder, name, beside, allowed)
            except BaseException as error:
                left = look(folder, beside)
                if ours is not None and left is not None and not _is(left, ours):
                    # Saved between the exchange and the one back: it is nobody's to throw away.
                    reason = f"it was changed here meanwhile; what was saved then is at {beside}"
                    raise BlockedError(reason) from error
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=folder)
                raise
        _placed()

    def _commit(self, folder: int, name: str, beside: str, allowed: Allowed) -> None:
        there = look(folder, name)
        if not allowed(folder, name):
            raise BlockedError("it was changed here meanwhile")
        if there is not None and there.kind == "folder":
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                raise BlockedError("it is a folder here that is not empty") from error
            there = None
        if there is None:
            _rename_new(folder, beside, name)
            return
        if not _exchange(folder, beside, name):
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        crash_point("apply-exchanged")
        taken = look(folder, beside)
        if taken is None or not _is(taken, there) or not allowed(folder, beside):
            _exchange(folder, beside, name)
            raise BlockedError("it was changed here meanwhile")
        os.unlink(beside, dir_fd=folder)

    def remove(self, path: str, allowed: Allowed) -> None:
        """Remove a file or link. allowed: as for `commit`.

        Raises BlockedError, OSError; then it is there.
        """
        try:
            with self._folder_of(path) as (folder, name):
                there = look(folder, name)
                if not allowed(folder, name):
                    raise BlockedError("it was changed here meanwhile")
                if there is None:
                    return
                beside = temporary(path)
                _rename_new(folder, name, beside)
                crash_point("apply-taken")
                taken = look(folder, beside)
                if taken is None or not _is(taken, there) or not allowed(folder, beside):
                    _rename_new(folder, beside, name)
                    raise BlockedError("it was changed here meanwhile")
                os.unlink(beside, dir_fd=folder)
        except FileNotFoundError:
            return
        _placed()

    def clear(self, path: str, known: Sequence[Was | None]) -> str | None:
        """Remove what an interrupted change left beside a file; its name when that is a stranger.

        known: what may be thrown away; empty: anything.
        """
        try:
            with self._folder_of(path) as (folder, _name):
                beside = temporary(path)
                there = look(folder, beside)
                if there is None:
                    return None
                if known and not any(self._is_known(folder, beside, there, was) for was in known):
                    return f"{path.rpartition('/')[0]}/{beside}".lstrip("/")
                os.unlink(beside, dir_fd=folder)
        except (FileNotFoundError, BlockedError):
            pass  # the folder is gone, and what was in it
        return None

    def _is_known(self, folder: int, name: str, there: Found, was: Was | None) -> bool:
        if was is None or was.kind != there.kind:
            return False
        if was.kind == "link":
            return os.fsencode(there.link) == was.link
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=folder)
        try:
            return self._pack.equals(fd, was.offset, was.size)
        finally:
            os.close(fd)

    def prune(self, path: str, wanted: Callable[[str], bool]) -> None:
        """Remove the folders above a removed file that are empty, up to one that is wanted."""
        folder = path.rpartition("/")[0]
        while folder and not wanted(folder):
            parent, _, name = folder.rpartition("/")
            try:
                with entered(self._root, parent) as fd:
                    os.rmdir(name, dir_fd=fd)
            except OSError:
                return
            folder = parent

    def sync(self) -> None:
        """Have on the disk what was prepared, or what was put in place. Raises OSError."""
        touched, self._touched = self._touched, set()
        if not self._few:
            if ctypes.CDLL(None, use_errno=True).syncfs(self._root) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            return
        for folder in touched:
            with contextlib.suppress(FileNotFoundError), entered(self._root, folder) as fd:
                os.fsync(fd)

    @contextlib.contextmanager
    def _folder_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        parent, _, name = path.rpartition("/")
        self._touched.add(parent)
        fd = os.dup(self._root)
        try:
            for part in parent.split("/") if parent else ():
                fd = _step(fd, part, make=make)
            yield fd, name
        finally:
            os.close(fd)


def _placed() -> None:
    crash_point("apply-placed")


def _step(fd: int, part: str, *, make: bool) -> int:
    """A descriptor of the folder `part` in place of that of its parent."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o777, dir_fd=fd)
        inner = os.open(part, flags, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise BlockedError(ABOVE) from error
        raise
    os.dup2(inner, fd, inheritable=False)
    os.close(inner)
    return fd


def temporary(path: str) -> str:
    """The name beside `path` under which its new content is written, the same every time."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    return f".{digest}{RESERVED}"


def _is(taken: Found, there: Found) -> bool:
    """Whether it is the file that was looked at; renaming changes the time of its status."""
    return taken.kind == there.kind and taken.signature[:3] == there.signature[:3]


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if status.st_mode & 0o170000 == 0o100000 else None


def _rename_new(folder: int, source: str, target: str) -> None:
    """Rename to a name that is free. Raises BlockedError when it is not."""
    number = _renameat2(folder, source, target, _NOREPLACE)
    if number in _MISSING:
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError as error:
            raise BlockedError("there is another one here") from error
        os.unlink(source, dir_fd=folder)
    elif number in _TAKEN:
        raise BlockedError("there is another one here")
    elif number:
        raise OSError(number, os.strerror(number), target)


def _exchange(folder: int, one: str, other: str) -> bool:
    """Exchange two names in one step; False where that cannot be done."""
    number = _renameat2(folder, one, other, _EXCHANGE)
    if number in _MISSING:
        return False
    if number:
        raise OSError(number, os.strerror(number), other)
    return True


def _renameat2(folder: int, source: str, target: str, flags: int) -> int:
    """renameat2(2); 0, or the errno."""
    if _RENAMEAT2 is None:
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        _RENAMEAT2, folder, os.fsencode(source), folder, os.fsencode(target), flags
    )
    return 0 if result == 0 else ctypes.get_errno()


def _umask() -> int:
    """This process's, read without changing it (proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
