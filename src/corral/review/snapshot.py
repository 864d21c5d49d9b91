"""A snapshot of a workspace for a guest to work on, and what it was made of.

work/        the copy, which the guest can write
base         how every name was (`Was`), as MessagePack
base.pack    what every file held (`pack`)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..host.copies import copy_folder
from ..spec.files import write_atomically
from . import refs
from .model import NONE, Signature, Was
from .pack import Pack
from .tree import file_in, opened, scan, signature

WORK, BASE, PACK = "work", "base", "base.pack"
VERSION = 1


class Base(msgspec.Struct):
    """How the workspace was, by path. left: what could not be copied.

    branch: the new one of git's that it was made on, "" for none; not kept.
    """

    names: dict[str, Was]
    left: list[str]
    branch: str = ""


class _Written(msgspec.Struct, array_like=True):
    version: int
    names: list[Was]
    left: list[bytes]


def make(
    source: str, folder: Path, hidden: Callable[[str, bool], bool] | None, branch: str = ""
) -> Base:
    """Make a snapshot of `source` in the new folder `folder`. Raises OSError.

    branch: a new one of git's for it to be on, so that what is committed there is told apart.
    """
    folder.mkdir(mode=0o700)
    contents: dict[str, tuple[int, int, Signature]] = {}
    by_inode: dict[int, str] = {}
    work = folder / WORK
    with Pack.opened(folder / PACK, write=True) as pack:

        def copied(path: str, status: os.stat_result, target: int) -> None:
            offset, size = pack.add(target)
            contents[path] = (offset, size, signature(status))

        left = copy_folder(source, str(work), hidden, copied)
        with opened(work) as root:
            branch, written = refs.start_branch(root, branch) if branch else ("", [])
            for path in written:
                with file_in(root, path) as fd:
                    contents[path] = (*pack.add(fd), NONE)
            found = scan(root)
    names: dict[str, Was] = {}
    for path, entry in found.items():
        if path in contents:
            by_inode[entry.signature[0]] = path
    for path, entry in found.items():
        known = contents.get(path)
        if known is None and entry.kind == "file":  # a further name of a file, or a masked one
            first = contents.get(by_inode.get(entry.signature[0], ""))
            known = (first[0], first[1], NONE) if first else None
        offset, size, here = known or (0, entry.size, NONE)
        names[path] = Was(
            path=os.fsencode(path),
            kind=entry.kind,
            mode=entry.mode,
            size=size,
            offset=offset,
            link=os.fsencode(entry.link),
            here=here,
            work=entry.signature,
            hidden=hidden is not None and hidden(path, entry.kind == "folder"),
        )
    base = Base(names, left, branch)
    write_base(folder, base)
    return base


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
