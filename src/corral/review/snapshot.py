"""A snapshot of a workspace for a guest to work on, and what it was made of.

work/        the copy, which the guest can write
base         how every name was (`Was`), as MessagePack
base.pack    what every file held (`pack`); one file for all agents, where it has several names
origin       of what it was copied (`origin`)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..spec.files import write_atomically
from .model import Was
from .pack import Pack

WORK, BASE, PACK = "work", "base", "base.pack"
VERSION = 1


class Base(msgspec.Struct):
    """How the workspace was, by path. left: what could not be copied."""

    names: dict[str, Was]
    left: list[str]


class _Written(msgspec.Struct, array_like=True):
    version: int
    names: list[Was]
    left: list[bytes]


def write_base(folder: Path, base: Base) -> None:
    """Keep it, in one step. Raises OSError."""
    left = [os.fsencode(path) for path in base.left]
    written = _Written(VERSION, list(base.names.values()), left)
    write_atomically(folder / BASE, msgspec.msgpack.encode(written), mode=0o600)


def read_base(folder: Path) -> Base:
    """What was kept. Raises ReviewError."""
    try:
        written = msgspec.msgpack.decode((folder / BASE).read_bytes(), type=_Written)
    except (OSError, ValueError) as error:
        raise ReviewError(
            f"the snapshot in {folder} is damaged: {error}.",
            hint="Throw it away: corral discard NAME",
        ) from error
    if written.version != VERSION:
        raise ReviewError(
            f"the snapshot in {folder} is of another version of corral.",
            hint="Apply or discard it with that version.",
        )
    names = {os.fsdecode(was.path): was for was in written.names}
    return Base(names, [os.fsdecode(path) for path in written.left])


@contextlib.contextmanager
def snapshot(folder: Path, *, write: bool = False) -> Iterator[tuple[Base, Pack]]:
    """An existing one, open. Raises ReviewError."""
    base = read_base(folder)
    try:
        stack = contextlib.ExitStack()
        pack = stack.enter_context(Pack.opened(folder / PACK, write=write))
    except OSError as error:
        raise ReviewError(
            f"the snapshot in {folder} cannot be read: {error.strerror}.",
            hint="Throw it away: corral discard NAME",
        ) from error
    with stack:
        yield base, pack
