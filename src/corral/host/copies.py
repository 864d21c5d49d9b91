"""Copies of folders, for machines that are to have one of their own.

Whoever can write in the source may try to lead the copy elsewhere: no link is followed, and every
name is looked up from a descriptor of its folder. What is shared on disk (FICLONE) or a hole in the
source is so in the copy, where the file system can do that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_FICLONE = 0x40049409  # linux/fs.h
MAX_DEPTH = 256  # folders in folders: each is entered by all those above it
_PIECE = 1 << 24  # bytes copied by one call
_NEVER_SET = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)
# What opening a name says that was another thing a moment ago: gone, or a link now.
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

Hidden = Callable[[str, bool], bool]
Copied = Callable[[str, os.stat_result, int], None]


class Earlier(Protocol):
    """An earlier copy that is brought up to date. trash: a folder for what goes; a descriptor."""

    trash: int

    def stays(self, path: str, folder: int, name: str, status: os.stat_result) -> bool:
        """Whether a file is in the copy as it would be if it were copied now.

        folder: where it is in the source. status: of it there.
        """


@dataclass
class _Work:
    """A copy under way. links: where a file with several names was put. left: not copied."""

    source: int
    target: int
    hidden: Hidden | None
    copied: Copied | None
    earlier: Earlier | None = None
    links: dict[tuple[int, int], str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    folders: list[tuple[str, os.stat_result]] = field(default_factory=list)


def copy_folder(
    source: str,
    target: str,
    hidden: Hidden | None = None,
    copied: Copied | None = None,
    earlier: Earlier | None = None,
) -> list[str]:
    """Copy the folder `source` to `target`, which is made; returns what could not be copied.

    hidden: (relative path, is a folder) of what is to be empty in the copy. copied: called with
    each file that was: its path, its source's status, a descriptor of the copy. Sockets, pipes,
    devices, what cannot be read, lies deeper than MAX_DEPTH or is replaced meanwhile are left out.
    Modes (without set-id bits), times, owners where this process may give files away, hard links
    and extended attributes `user.*` stay. earlier: what `target` is already; all of it that is not
    as it would be now goes. Raises OSError, then also when `target` is none that can be used again.
    """
    if earlier is None:
        os.mkdir(target, 0o700)  # noqa: PTH102 - as below, where it goes by descriptor
    with contextlib.ExitStack() as stack:
        work = _Work(os.open(source, _FOLDER), os.open(target, _FOLDER), hidden, copied, earlier)
        stack.callback(os.close, work.source)
        stack.callback(os.close, work.target)
        own = os.fstat(work.target)
        work.folders.append(("", os.fstat(work.source)))
        done = 0
        while done < len(work.folders):
            path, _status = work.folders[done]
            done += 1
            with contextlib.ExitStack() as open_folders:
                try:
                    here = open_folders.enter_context(entered(work.source, path))
                except OSError as error:
                    if error.errno not in _CHANGED or earlier is not None:
                        raise
                    work.left.append(path)
                    continue
                there = open_folders.enter_context(entered(work.target, path))
                _copy_entries(work, path, here, there, (own.st_dev, own.st_ino))
        for path, status in reversed(work.folders):  # last: what is inside changes their times
            with entered(work.target, path) as there:
                _dress(there, status)
    return work.left


def copy_file(source: int, target: int) -> None:
    """Fill the empty file `target` with what `source` holds. Raises OSError."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
    else:
        return
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(source, offset, os.SEEK_HOLE)
        offset = _copy_range(source, target, offset, end)


def _copy_range(source: int, target: int, offset: int, end: int) -> int:
    os.lseek(source, offset, os.SEEK_SET)
    os.lseek(target, offset, os.SEEK_SET)
    while offset < end:
        try:
            moved = os.copy_file_range(source, target, min(_PIECE, end - offset))
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            moved = os.write(target, os.read(source, min(1 << 20, end - offset)))
        if not moved:  # it became shorter meanwhile
            return end
        offset += moved
    return offset


@contextlib.contextmanager
def entered(root: int, path: str) -> Iterator[int]:
    """A descriptor of the folder `path` below `root`, one name at a time; no link is followed.

    Raises OSError.
    """
    fd = os.dup(root)
    try:
        for name in path.split("/") if path else ():
            inner = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _copy_entries(work: _Work, path: str, here: int, there: int, own: tuple[int, int]) -> None:
    old = _old_entries(work, there)
    for name in dict.fromkeys(os.listdir(here)):  # renamed meanwhile, one may be listed twice
        inner = f"{path}/{name}" if path else name
        try:
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == own:
                continue  # the copy itself
            if not _copy_entry(work, inner, name, here, there, status, old):
                work.left.append(inner)
        except PermissionError:
            work.left.append(inner)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            work.left.append(inner)
    for name in old:
        _put_away(work, there, name)


def _old_entries(work: _Work, there: int) -> set[str]:
    """What an earlier copy has in a folder, which is opened up for us. Raises OSError."""
    if work.earlier is None:
        return set()
    os.fchmod(there, 0o700)
    if any(not name.startswith("security.") for name in _attributes(there)):
        raise OSError(errno.EEXIST, "a folder has attributes that none of ours has")
    return set(os.listdir(there))


def _put_away(work: _Work, there: int, name: str) -> None:
    """Take what an earlier copy has of this name out of it."""
    try:
        os.unlink(name, dir_fd=there)
    except IsADirectoryError:
        if work.earlier is None:
            raise
        _open_up(there, name)  # only who may write in a folder may move it
        free = secrets.token_hex(16)
        os.rename(name, free, src_dir_fd=there, dst_dir_fd=work.earlier.trash)


def _stays(
    work: _Work, path: str, name: str, here: int, there: int, status: os.stat_result
) -> bool:
    """Whether what an earlier copy has of a file that is not hidden is right."""
    if work.earlier is None or not work.earlier.stays(path, here, name, status):
        return False
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and work.links.setdefault(key, path) != path:
        folder, _, first = work.links[key].rpartition("/")
        with entered(work.target, folder) as found:
            one = os.stat(first, dir_fd=found, follow_symlinks=False)
        return os.path.samestat(one, os.stat(name, dir_fd=there, follow_symlinks=False))
    return True


def _copy_entry(
    work: _Work,
    path: str,
    name: str,
    here: int,
    there: int,
    status: os.stat_result,
    old: set[str],
) -> bool:
    """Copy what has this name; False for what cannot be copied. old: what an earlier copy has."""
    is_folder = stat.S_ISDIR(status.st_mode)
    hidden = work.hidden is not None and work.hidden(path, is_folder)
    if name in old:
        if stat.S_ISREG(status.st_mode) and not hidden:
            if _stays(work, path, name, here, there, status):
                old.remove(name)
                return True
        elif is_folder and not hidden and path.count("/") < MAX_DEPTH:
            before = os.stat(name, dir_fd=there, follow_symlinks=False)
            if stat.S_ISDIR(before.st_mode):
                os.close(os.open(name, _FOLDER, dir_fd=here))  # may it be read at all?
                _open_up(there, name)
                work.folders.append((path, status))
                old.remove(name)
                return True
        _put_away(work, there, name)
        old.remove(name)
    if is_folder:
        if path.count("/") >= MAX_DEPTH:
            return False
        if not hidden:
            os.close(os.open(name, _FOLDER, dir_fd=here))  # may it be read at all?
            work.folders.append((path, status))
        os.mkdir(name, 0o700, dir_fd=there)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(_link(name, here, path), name, dir_fd=there)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_regular(work, path, name, here, there, hidden=hidden)
    else:
        return False
    return True


def _link(name: str, folder: int, path: str) -> str:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:  # it is no link any more
            raise FileNotFoundError(errno.ENOENT, "it was replaced", path) from error
        raise


def _copy_regular(
    work: _Work, path: str, name: str, here: int, there: int, *, hidden: bool
) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        source = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=here)
        stack.callback(os.close, source)
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it was replaced", path)
        key = (status.st_dev, status.st_ino)
        if key in work.links and not hidden:
            folder, _, first = work.links[key].rpartition("/")
            with entered(work.target, folder) as found:
                os.link(first, name, src_dir_fd=found, dst_dir_fd=there, follow_symlinks=False)
            return
        target = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=there)
        stack.callback(os.close, target)
        if not hidden:
            if status.st_nlink > 1:
                work.links[key] = path
            copy_file(source, target)
            _copy_attributes(source, target)
            _dress(target, status)
            if work.copied is not None:
                work.copied(path, status, target)


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in _UNABLE:  # a file system without them
            return []
        raise


def _copy_attributes(source: int, target: int) -> None:
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(source):
            if name.startswith("user."):
                os.setxattr(target, name, os.getxattr(source, name))


def _dress(fd: int, status: os.stat_result) -> None:
    """Owner, mode and times."""
    with contextlib.suppress(PermissionError):
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & ~_NEVER_SET)
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_tree(folder: Path) -> None:
    """Remove a folder, also where what is in it may not be written. Raises OSError.

    However deep it is: folders in folders are moved up to it first, level by level, so that this
    neither recurses nor needs a descriptor for each.
    """
    folder.chmod(0o700)
    root = os.open(folder, _FOLDER)
    try:
        while names := os.listdir(root):  # noqa: PTH208 - by descriptor
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # somebody else removes it as well
                    _take_apart(root, name)
    finally:
        os.close(root)
    folder.rmdir()


def _take_apart(root: int, name: str) -> None:
    """Remove an entry of the folder `root`; the folders in it become entries of `root`."""
    try:
        os.unlink(name, dir_fd=root)
    except IsADirectoryError:
        pass
    else:
        return
    _open_up(root, name)
    folder = os.open(name, _FOLDER, dir_fd=root)
    try:
        for inner in os.listdir(folder):  # noqa: PTH208 - by descriptor
            try:
                os.unlink(inner, dir_fd=folder)
            except IsADirectoryError:
                _open_up(folder, inner)  # only who may write in a folder may move it
                free = secrets.token_hex(16)
                os.rename(inner, free, src_dir_fd=folder, dst_dir_fd=root)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=root)


def _open_up(parent: int, name: str) -> None:
    """Let ourselves do everything in a folder; what is none is left alone."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", 0o700)  # noqa: PTH101 - fchmod takes no such descriptor
    finally:
        os.close(fd)
