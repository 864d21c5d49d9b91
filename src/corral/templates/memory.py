"""A machine's memory as a sparse file, and back. Pages of zeros are holes (lseek(2), SEEK_DATA)."""

from __future__ import annotations

import os
from collections.abc import Iterator

_PAGE = 4096
_PIECE = 1 << 20  # bytes looked at or copied at once


def keep_memory(memory: int, file: int, *, sync: bool = True) -> int:
    """Write what the descriptor `memory` holds to the empty `file`; returns the bytes kept.

    sync: it is on the disk when this returns. Raises OSError (ENOSPC: the disk is full).
    """
    size = os.fstat(memory).st_size
    os.ftruncate(file, size)
    kept = 0
    for start, end in data_of(memory, size):
        for offset in range(start, end, _PIECE):
            piece = os.pread(memory, min(_PIECE, end - offset), offset)
            kept += _write_pages(file, piece, offset)
    if sync:
        os.fsync(file)
    return kept


def _write_pages(file: int, piece: bytes, offset: int) -> int:
    """Write the runs of pages of `piece` that are not all zeros."""
    zeros = bytes(_PAGE)
    view = memoryview(piece)
    kept, begin = 0, -1
    for at in range(0, len(piece) + _PAGE, _PAGE):
        used = at < len(piece) and piece[at : at + _PAGE] != zeros[: len(piece) - at]
        if used and begin < 0:
            begin = at
        elif not used and begin >= 0:
            end = min(at, len(piece))
            if os.pwrite(file, view[begin:end], offset + begin) != end - begin:
                raise OSError(28, os.strerror(28))  # ENOSPC: a regular file writes less only then
            kept += end - begin
            begin = -1
    return kept


def copy_memory(file: int, memory: int) -> None:
    """Fill the descriptor `memory`, all zeros, from a file that `keep_memory` wrote.

    sendfile(2) moves the pages without a copy into this process, and without Python's lock.
    """
    size = os.fstat(file).st_size
    for start, end in data_of(file, size):
        os.lseek(memory, start, os.SEEK_SET)
        offset = start
        while offset < end:
            sent = os.sendfile(memory, file, offset, end - offset)
            if not sent:
                raise OSError(5, "the saved memory ends too early")
            offset += sent


def data_of(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that are no holes."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole follows
            return
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, offset
