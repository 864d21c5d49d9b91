"""Folders that a guest writes to: the host opens what is in them part by part, and follows no link.

Every name is opened relative to the folder before it, so that nothing that is exchanged meanwhile
leads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKED = (errno.ELOOP, errno.ENOTDIR)  # O_NOFOLLOW with O_DIRECTORY gives either


class LinkedError(Exception):
    """A part of the path is a link, or no folder. path: that part."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@contextmanager
def opened(root: str, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder `parts` below `root`. make: whether missing ones are made (0700).

    Raises LinkedError, OSError.
    """
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts, 1):
            if make:
                # What is there already is seen when it is opened.
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
            try:
                following = os.open(part, _FOLDER, dir_fd=current)
            except OSError as error:
                if error.errno in _LINKED:
                    raise LinkedError("/".join(parts[:number])) from error
                raise
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def exists(folder: int, name: str) -> bool:
    """Whether there is anything of this name in the open folder, a link to nothing included."""
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def write_new(folder: int, name: str, content: bytes, mode: int = 0o600) -> None:
    """A new file in the open folder. Raises FileExistsError for anything of that name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=folder)
    with open(descriptor, "wb") as file:
        file.write(content)


def read_file(folder: int, name: str, limit: int) -> bytes | None:
    """A regular file of at most `limit` bytes; None for anything else. Raises OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        content = file.read(limit + 1)
    return content if len(content) <= limit else None
