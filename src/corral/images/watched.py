"""Whether a file is as it was: what an answer in the cache is good for."""

from __future__ import annotations

from pathlib import Path

import msgspec


class FileState(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was. size: bytes (0 for a folder). modified: ns since the epoch."""

    path: str
    size: int
    modified: int


def state(path: Path) -> FileState:
    """The file or folder as it is now. Raises OSError when it cannot be reached."""
    status = path.stat()
    return FileState(str(path), 0 if path.is_dir() else status.st_size, status.st_mtime_ns)
