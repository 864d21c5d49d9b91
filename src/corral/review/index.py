"""What git's index says is in the next commit, apart from what it remembers of files' times.

`git status` writes the index anew though nothing was staged. No git is run on one that a guest
wrote: this reads what gitformat-index(5) describes, and makes nothing of what it does not know.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from .compare import Comparison
from .model import Change

MAX_SIZE = 16 << 20  # bytes; one of 100,000 files has some 10 MiB
MAX_PATH = 4096  # bytes (PATH_MAX, linux/limits.h)
_HEADER = struct.Struct(">4sII")
_MODE = 24  # offset in an entry; before it are times, device and inode, then user, group and size
_HASH = 40
_EXTENDED = 0x4000
_KEPT = 0xF000  # of the flags: all but the name's length
_TRAILERS = (("sha1", 20), ("sha256", 32))


def only_refreshed(comparison: Comparison, change: Change) -> bool:
    """Whether a change is of an index that says the same as before."""
    if change.path.rpartition("/")[2] != "index" or not (change.old and change.new):
        return False
    both = comparison.contents(change, MAX_SIZE)
    if both.old is None or both.new is None:
        return False
    before = said(both.old)
    return before is not None and before == said(both.new)


def said(data: bytes) -> bytes | None:
    """A digest of path, mode, object and flags of all entries.

    None for what is no whole index, or one that is only part of what git knows (a split or a sparse
    one).
    """
    size = next(
        (n for kind, n in _TRAILERS if hashlib.new(kind, data[:-n]).digest() == data[-n:]), 0
    )
    if not size or len(data) < _HEADER.size + size:
        return None
    magic, version, count = _HEADER.unpack_from(data)
    if magic != b"DIRC" or version not in (2, 3, 4):
        return None
    end = len(data) - size
    try:
        found, at = _digest(data[:end], version, count, size)
        whole = all(name[:1].isupper() for name in _extensions(data[:end], at))
    except (IndexError, ValueError, struct.error):
        return None
    return found if whole else None


def _digest(data: bytes, version: int, count: int, size: int) -> tuple[bytes, int]:
    """Of the entries, and where they end."""
    found = hashlib.sha256()
    at, path = _HEADER.size, b""
    for _ in range(count):
        start = at
        number = data[start + _HASH : start + _HASH + size]
        at = start + _HASH + size
        (flags,) = struct.unpack_from(">H", data, at)
        at += 2
        further = 0
        if flags & _EXTENDED:
            (further,) = struct.unpack_from(">H", data, at)
            at += 2
        if version == 4:
            dropped, at = _varint(data, at)
            if dropped > len(path):
                raise ValueError("it drops more of the last name than that has")
        last = data.index(b"\0", at)
        if version == 4:
            path = path[: len(path) - dropped] + data[at:last]
            at = last + 1
        else:
            path = data[at:last]
            at = start + (last - start) // 8 * 8 + 8
        if len(path) > MAX_PATH:
            raise ValueError("no file has such a path")
        found.update(data[start + _MODE : start + _MODE + 4] + number)
        found.update(struct.pack(">HHH", flags & _KEPT, further, len(path)) + path)
    return found.digest(), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number as in git's packs (offset encoding), and where it ends."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = (value + 1 << 7) | (data[at] & 0x7F)
        if value > MAX_SIZE:
            raise ValueError("it is no length")
    return value, at + 1


def _extensions(data: bytes, at: int) -> Iterator[bytes]:
    """Their names; git may do without those that begin with a capital letter."""
    while at < len(data):
        name, length = struct.unpack_from(">4sI", data, at)
        yield name
        at += 8 + length
