"""What commands and keepers that were killed have left in the state folder, and when it goes.

    sandboxes/NAME/                          without a request: of a fork, or a start, cut off
    sandboxes/NAME/checkpoints/.fork-COPY    what copies go on from; COPY is the first of them
    sandboxes/NAME/checkpoints/.*            a checkpoint half made, or half removed
    sandboxes/NAME/disk.qcow2.*              a disk half made, or half put back
    sandboxes/.gone-*                        a sandbox half removed

A command holds the locks of all the copies that it makes until they are up, so a copy whose lock is
free is being made by nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import HostError
from ..host.copies import remove_tree
from ..spec.values import NAME_PATTERN
from .checkpoints import DISK, FOLDER, FORK, UNFINISHED
from .store import Record, left_gone, names, remove_gone, root


def sweep(record: Record) -> None:
    """Of one sandbox; under its keeper's lock, before its machine starts. Raises HostError."""
    with _failing():
        _remove(_unfinished(record))
        for folder, copy in _forks(record):
            _remove_unless_used(folder, copy)


def clear(*, dry_run: bool) -> list[Path]:
    """Everything that nobody uses; returns what that was. dry_run: it stays. Raises HostError."""
    with _failing():
        cleared = left_gone()
        if not dry_run:
            remove_gone()
        for record in _half_made():
            if _removed(record, dry_run=dry_run):
                cleared.append(record.folder)
        for name in names():
            record = Record(name)
            for folder, copy in _forks(record):
                free = not copy.is_changing() if dry_run else _remove_unless_used(folder, copy)
                cleared += [folder] if free else []
            if dry_run:
                cleared += _unfinished(record) if _is_idle(record) else []
                continue
            with record.unless_changing() as mine:
                if mine and not record.is_kept():
                    cleared += _remove(_unfinished(record))
        return cleared


def remove(record: Record) -> bool:
    """Of a sandbox that was to become a copy, and does not exist; False when there is nothing."""
    with _failing():
        found = record.folder.is_dir() and _removed(record)
        for folder in root().glob(f"*/{FOLDER}/{FORK}{record.name}"):
            found |= _remove_unless_used(folder, record)
        return found


def _half_made() -> Iterator[Record]:
    for folder in sorted(root().iterdir()):
        if NAME_PATTERN.fullmatch(folder.name) and folder.is_dir():
            record = Record(folder.name)
            if not (record.exists() or record.is_kept()):
                yield record


def _removed(record: Record, *, dry_run: bool = False) -> bool:
    """Whether the folder of a sandbox that does not exist is gone now (dry_run: would be)."""
    if dry_run:
        return _is_idle(record)
    with record.unless_changing() as mine:  # which removes what nothing comes of
        return mine and not record.exists()


def _is_idle(record: Record) -> bool:
    return not (record.is_changing() or record.is_kept())


def _unfinished(record: Record) -> list[Path]:
    """What its keeper alone makes, and leaves when it is killed."""
    forks = [folder for folder, _copy in _forks(record)]
    dotted = sorted((record.folder / FOLDER).glob(".*"))
    disks = [record.folder / (DISK + ending) for ending in UNFINISHED]
    return [each for each in dotted if each not in forks] + [
        each for each in disks if each.exists()
    ]


def _forks(record: Record) -> list[tuple[Path, Record]]:
    """What copies of it go on from, and whose lock says whether they still do."""
    found = sorted((record.folder / FOLDER).glob(f"{FORK}*"))
    return [
        (folder, Record(name))
        for folder in found
        if NAME_PATTERN.fullmatch(name := folder.name.removeprefix(FORK))
    ]


def _remove_unless_used(folder: Path, copy: Record) -> bool:
    with copy.unless_changing() as mine:
        return mine and bool(_remove([folder]))


def _remove(entries: list[Path]) -> list[Path]:
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # somebody else is at it
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()
    return entries


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(
            f"what was left in {root()} cannot be removed: {error.strerror}.",
            hint="Make what is in it yours, or remove it by hand.",
        ) from error
