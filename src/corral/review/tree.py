"""Looking at a folder that somebody hostile may write in: by descriptors, no link followed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReviewError
from ..host.copies import MAX_DEPTH, entered
from .model import Found, Kind, Signature

MAX_ENTRIES = 1_000_000  # names in one tree: some GiB of this process's memory
# Of the paths of all of them together, in characters: a million files of a usual tree have half of
# that; an agent can make each as long as MAX_DEPTH names are.
MAX_LENGTH = 128 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


@contextlib.contextmanager
def opened(root: Path) -> Iterator[int]:
    """A descriptor of a folder of ours, or of the user's. Raises ReviewError."""
    try:
        fd = os.open(root, _FOLDER)
    except OSError as error:
        raise ReviewError(
            f"the folder {root} cannot be opened: {error.strerror}.",
            hint="Was it moved or removed? Throw the changes away: corral discard NAME",
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def scan(root: int, most: int = MAX_ENTRIES) -> dict[str, Found]:
    """All that is below `root`, by relative path. What is deeper than MAX_DEPTH is "other".

    Raises ReviewError for more than `most` names, or so much less than MAX_LENGTH characters in
    them, OSError.
    """
    found: dict[str, Found] = {}
    todo = [""]
    length = 0
    while todo:
        path = todo.pop()
        try:
            with entered(root, path) as folder:
                length = _list(folder, path, found, todo, length, most)
        except PermissionError:  # the owner of the tree took our right: what is in it is unknown
            if path:
                found[path] = _other(found[path])
        except OSError as error:
            if error.errno not in _GONE:
                raise
    return found


def _list(
    folder: int, path: str, found: dict[str, Found], todo: list[str], length: int, most: int
) -> int:
    """Look at all that is in a folder. length: of the paths that were found so far; returned."""
    with os.scandir(folder) as entries:
        for each in entries:
            inner = f"{path}/{each.name}" if path else each.name
            with contextlib.suppress(FileNotFoundError):
                entry = look(folder, each.name)
                if entry is None:
                    continue
                if entry.kind == "folder":
                    if inner.count("/") >= MAX_DEPTH:
                        entry = _other(entry)
                    else:
                        todo.append(inner)
                length += len(inner) + len(entry.link)
                found[inner] = entry
            if len(found) > most or length > MAX_LENGTH // MAX_ENTRIES * most:
                raise ReviewError(
                    f"there are more than {most:,} files, or names too long to compare.",
                    hint="Throw the changes away: corral discard NAME",
                )
    return length


def _other(entry: Found) -> Found:
    return Found("other", entry.mode, entry.size, "", entry.signature)


def look(folder: int, name: str) -> Found | None:
    """What `name` is in an open folder; None when there is no such thing. Raises OSError."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        link = ""
        if stat.S_ISLNK(status.st_mode):
            link = os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):  # EINVAL: it is no link any more
            return None
        raise
    mode = stat.S_IMODE(status.st_mode) & 0o777
    size = len(os.fsencode(link)) if link else status.st_size
    return Found(kind_of(status.st_mode), mode, size, link, signature(status))


def kind_of(mode: int) -> Kind:
    """What st_mode says."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "link"
    return "folder" if stat.S_ISDIR(mode) else "other"


def signature(status: os.stat_result) -> Signature:
    """What tells a file that was changed, or replaced, from one that was not."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextlib.contextmanager
def file_in(root: int, path: str) -> Iterator[int]:
    """A descriptor of the regular file `path`, to read. Raises OSError for whatever else."""
    parent, _, name = path.rpartition("/")
    with entered(root, parent) as folder:
        fd = os.open(name, FILE, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is no plain file", path)
        yield fd
    finally:
        os.close(fd)
