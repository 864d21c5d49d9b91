"""The contents that a review must remember: one file that is only ever added to.

One file and no second tree: making a file costs more than writing a few kilobytes. The guest cannot
reach it. Where the file system shares blocks (btrfs, XFS), what is large is shared with its source.
Agents whose snapshots were made together share one: a file with several names.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_LARGE = 64 * 1024  # bytes from which a content begins on a block, so that blocks can be shared
_BLOCK = 4096
_PIECE = 1 << 20
_UNABLE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS)


class Pack:
    """An open pack. Not for several writers at once: those hold the review's lock."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, write: bool = False) -> Iterator[Pack]:
        """The pack in a file, which is made if it is to be written. Raises OSError."""
        flags = (os.O_RDWR | os.O_CREAT) if write else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    @property
    def end(self) -> int:
        """Where the next content is put, in bytes."""
        return self._end

    def add(self, source: int) -> tuple[int, int]:
        """Append what a file holds, holes as holes; (offset, size). Raises OSError."""
        size = os.fstat(source).st_size
        if size < _LARGE:
            data = os.pread(source, _LARGE, 0)
            return self.add_bytes(data)
        start = -(-self._end // _BLOCK) * _BLOCK
        os.ftruncate(self._fd, start + size)
        self._end = start + size
        for begin, end in extents(source, size):
            self._move(source, begin, start, end - begin)
        return start, size

    def add_bytes(self, data: bytes) -> tuple[int, int]:
        """Append these; (offset, size)."""
        start = self._end
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], start + written)
        self._end += len(data)
        return start, len(data)

    def _move(self, source: int, begin: int, start: int, length: int) -> None:
        done = 0
        while done < length:
            try:
                moved = os.copy_file_range(
                    source, self._fd, length - done, begin + done, start + begin + done
                )
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                data = os.pread(source, min(_PIECE, length - done), begin + done)
                moved = os.pwrite(self._fd, data, start + begin + done) if data else 0
            if not moved:  # it became shorter meanwhile: the rest reads as zeros
                return
            done += moved

    def read(self, offset: int, size: int) -> bytes:
        """A content, or its beginning."""
        pieces = []
        while size > 0 and (data := os.pread(self._fd, min(size, _PIECE), offset)):
            pieces.append(data)
            offset += len(data)
            size -= len(data)
        return b"".join(pieces)

    def write_to(self, target: int, offset: int, size: int) -> None:
        """Fill the empty file `target` with a content; holes stay holes. Raises OSError."""
        os.ftruncate(target, size)
        for begin, end in extents(self._fd, offset + size, offset):
            os.lseek(target, begin - offset, os.SEEK_SET)
            while begin < end:
                data = os.pread(self._fd, min(_PIECE, end - begin), begin)
                if not data:
                    return
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
                begin += len(data)

    def equals(self, source: int, offset: int, size: int) -> bool:
        """Whether a file holds the same."""
        return os.fstat(source).st_size == size and same(source, 0, self._fd, offset, size)

    def trim(self, end: int) -> None:
        """Forget what lies behind `end`, unless others may have put something there."""
        if end < self._end and os.fstat(self._fd).st_nlink == 1:
            os.ftruncate(self._fd, end)
            self._end = end

    def sync(self) -> None:
        """Have it on the disk."""
        os.fsync(self._fd)


def extents(fd: int, end: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """(begin, end) of what is no hole in a part of a file. Raises OSError."""
    offset = start
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        if offset >= end:
            return
        hole = min(os.lseek(fd, offset, os.SEEK_HOLE), end)
        yield offset, hole
        offset = hole


def same(one: int, first: int, other: int, second: int, size: int) -> bool:
    """Whether `size` bytes of two files are the same; what is a hole in both is not read."""
    done = 0
    while done < size:
        piece = min(_PIECE, size - done)
        data = os.pread(one, piece, first + done)
        if not data or data != os.pread(other, len(data), second + done):
            return False
        done += len(data)
        if done < size:
            skipped = _data_at(one, first + done, first + size) - first
            done = min(skipped, _data_at(other, second + done, second + size) - second)
    return True


def _data_at(fd: int, offset: int, end: int) -> int:
    """Where the next data of a file is, `end` at the most."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_DATA), end)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole follows
            return end
        raise
