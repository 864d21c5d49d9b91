"""Logs of a sandbox: bounded files, read while they are written."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

LIMIT = 1 << 20  # bytes of a file before it becomes the older one, of which there is one
READ_SIZE = 1 << 16
SYNC_SECONDS = 1.0  # so much is lost at most when the host goes down


class Syncing:
    """Has the disk take what was written to some journals, once a second while there is more."""

    def __init__(self) -> None:
        self._changed: set[Journal] = set()
        self._left: list[int] = []  # files that have become the older part
        self._more = asyncio.Event()

    def wrote(self, journal: Journal) -> None:
        """There is more in it."""
        self._changed.add(journal)
        self._more.set()

    def turned(self, fd: int) -> None:
        """Nothing more is written there: to be synced and closed."""
        self._left.append(fd)
        self._more.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            await asyncio.sleep(SYNC_SECONDS)  # together with what comes meanwhile
            descriptors = [*self._left, *(journal.descriptor() for journal in self._changed)]
            self._changed.clear()
            self._left.clear()
            await asyncio.to_thread(_sync, descriptors)

    def close(self) -> None:
        """Close what is left."""
        _sync(self._left)
        self._left.clear()


def _sync(descriptors: list[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            with contextlib.suppress(OSError):  # the next write tells
                os.fdatasync(fd)
            os.close(fd)


class Journal:
    """A file that grows to `limit` bytes, then takes the place of NAME.1.

    Nothing it does raises OSError: a full disk must not end a sandbox. failure: what went wrong
    last, or None. first: what every new file begins with, made of how things are after all that
    was written; so what fills a file is in that file, which is the longer for it. syncing: told of
    each write.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int = LIMIT,
        first: Callable[[], bytes] | None = None,
        syncing: Syncing | None = None,
    ) -> None:
        self._path = path
        self._limit = limit
        self._first = first
        self._syncing = syncing
        self._fd = -1
        self._size = 0
        self._dropped = 0  # bytes that were in files before this one
        self._more = asyncio.Event()
        self._closed = False
        self.failure: str | None = None
        self._open()
        self._begin()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size
        except OSError as error:
            self._fd, self.failure = -1, str(error)

    def write(self, data: bytes) -> None:
        """Append."""
        if self._fd < 0 or self._closed:
            return
        try:
            if self._first is None and self._size and self._size + len(data) > self._limit:
                self._turn()
            self._put(data)
            if self._first is not None and self._size > self._limit:
                self._turn()
                self._begin()
        except OSError as error:
            self.failure = str(error)
        self._wake()

    def _begin(self) -> None:
        """What every file begins with."""
        if self._first is not None and self._fd >= 0 and not self._size:
            try:
                self._put(self._first())
            except OSError as error:
                self.failure = str(error)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]
        if self._syncing is not None:
            self._syncing.wrote(self)

    def descriptor(self) -> int:
        """One more descriptor of the file, or -1: for `Syncing`."""
        return os.dup(self._fd) if self._fd >= 0 else -1

    def _turn(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it: begin anew
            # Else another sandbox of this name, which runs at the same time, has turned already.
            if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                self._path.replace(older(self._path))
        if self._syncing is not None:
            self._syncing.turned(self._fd)
        else:
            os.close(self._fd)
        self._fd = -1
        self._dropped += self._size
        self._open()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """All that is kept, then what comes, until `close`. Who is too slow misses the oldest."""
        for data in contents(older(self._path)):
            yield data
        position = self._dropped
        while True:
            more = self._more
            position = max(position, self._dropped)
            data = self._at(position - self._dropped)
            if data:
                position += len(data)
                yield data
            elif self._closed:
                return
            else:
                await more.wait()

    def _at(self, offset: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(READ_SIZE)
        except OSError:
            return b""

    def close(self) -> None:
        """Write no more; those who follow come to an end."""
        if self._fd >= 0:
            if self._syncing is not None:
                self._syncing.turned(self._fd)
            else:
                os.close(self._fd)
            self._fd = -1
        self._closed = True
        self._wake()


def tail(path: Path, *, follow: bool = False) -> Iterator[bytes]:
    """What a log has, the older part first, in whole lines; with `follow` also what comes, without
    end but its folder's, whichever process writes it.

    inotify(7) tells of it. Raises OSError.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    changes = watched(path.parent) if follow else -1  # before the first look: nothing is missed
    file = -1
    try:
        yield from _lines(contents(older(path)))
        rest = b""
        while True:
            if file < 0:
                file = _opened(path, folder)
            while file >= 0 and (data := os.read(file, READ_SIZE)):
                whole, newline, rest = (rest + data).rpartition(b"\n")
                if newline:
                    yield whole + newline
            if file >= 0 and not _is_at(file, path):  # it has become the older part
                os.close(file)
                file, rest = -1, b""
            elif not follow or not os.fstat(folder).st_nlink:  # or it was removed
                return
            else:
                os.read(changes, READ_SIZE)  # waits
    finally:
        for fd in (folder, changes, file):
            if fd >= 0:
                os.close(fd)


class Lines:
    """The whole lines of a log as it grows, the older part first, also when it turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._begun = False
        self._rest = b""

    def more(self) -> Iterator[bytes]:
        """Those that were not given yet. Raises OSError."""
        if not self._begun:
            self._begun = True
            for piece in _lines(contents(older(self._path))):
                yield from piece.splitlines(keepends=True)
        while True:
            if self._fd < 0:
                try:
                    self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    return
            while data := os.read(self._fd, READ_SIZE):
                whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
                yield from (whole + newline).splitlines(keepends=True)
            if _is_at(self._fd, self._path):
                return
            self.close()  # it has become the older part

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._rest = -1, b""


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield whole + newline


def _opened(path: Path, folder: int) -> int:
    try:
        return os.open(path.name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return -1


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def watched(folder: Path) -> int:
    """A descriptor that can be read when something is written or made in the folder, or it goes."""
    import ctypes

    in_modify, in_moved_to, in_create, in_delete = 0x2, 0x80, 0x100, 0x200  # linux/inotify.h
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, bytes(folder), in_modify | in_moved_to | in_create) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    libc.inotify_add_watch(fd, bytes(folder.parent), in_delete)
    return int(fd)


def older(path: Path) -> Path:
    """Where the older part is."""
    return path.with_name(f"{path.name}.1")


def contents(*paths: Path) -> Iterator[bytes]:
    """What is in these files, those that are there, in pieces. Raises OSError."""
    for path in paths:
        try:
            with path.open("rb") as file:
                while data := file.read(READ_SIZE):
                    yield data
        except FileNotFoundError:
            continue
