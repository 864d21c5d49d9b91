"""Files of this machine as an archive for a sandbox.

A sandbox may change the workspace while it is read: so each folder is opened by descriptor, no
link is followed on the way, and only plain files are opened. What is no file, folder or link is
left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from corral_guest import tar

from ..errors import FileError
from .archives import MAX_DEPTH
from .file_errors import file_error

if TYPE_CHECKING:
    import tarfile

PIECE = 1 << 18  # bytes of one piece of an archive, about
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Packer:
    """The archive of one file, link or folder, in pieces.

    name: what it is called in the archive; empty for what is in a folder, without it. follow: what
    a link leads to instead of the link. After the last piece `left_out` has the paths of what was
    not packed, `files` and `size` count.
    """

    def __init__(self, source: Path, name: bytes, *, follow: bool = False) -> None:
        self._source = source
        self._name = name
        self._follow = follow
        self._buffer = bytearray()
        self.left_out: list[str] = []
        self.files = 0
        self.size = 0

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises FileError."""
        source = self._source
        try:
            if self._follow:
                source = source.resolve(strict=True)
            parent = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # "..", or "/" itself, has no name in its folder.
                last = os.fsencode(source.name) if source.name not in ("", "..") else b"."
                if last == b".":
                    os.close(parent)
                    parent = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                yield from self._pack(parent, last, self._name, 1)
            finally:
                os.close(parent)
        except OSError as error:
            raise file_error(error, source, here=True) from error
        yield bytes(self._buffer + tar.END)

    def _pack(self, parent: int, name: bytes, path: bytes, depth: int) -> Iterator[bytes]:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not path and not stat.S_ISDIR(found.st_mode):
            number = errno.ENOTDIR
            raise NotADirectoryError(number, os.strerror(number), os.fspath(self._source))
        entry = tar.Entry(path, tar.FILE, found.st_mode & 0o777, 0, int(found.st_mtime))
        if stat.S_ISLNK(found.st_mode):
            entry.kind, entry.target = tar.LINK, os.readlink(name, dir_fd=parent)
            self._buffer += tar.header(entry)
        elif stat.S_ISDIR(found.st_mode):
            if depth > MAX_DEPTH:
                raise FileError(f"{os.fsdecode(path)}: folders in folders, over {MAX_DEPTH} deep.")
            entry.kind = tar.FOLDER
            if path:
                self._buffer += tar.header(entry)
            fd = os.open(name, _FOLDER, dir_fd=parent)
            try:
                names = os.listdir(fd)  # noqa: PTH208 - by descriptor
                for below in sorted(map(os.fsencode, names)):
                    yield from self._pack(
                        fd, below, path + b"/" + below if path else below, depth + 1
                    )
            finally:
                os.close(fd)
        elif stat.S_ISREG(found.st_mode):
            yield from self._file(parent, name, entry)
        else:
            self.left_out.append(os.fsdecode(path))
        if len(self._buffer) >= PIECE:
            yield self._take()

    def _file(self, parent: int, name: bytes, entry: tar.Entry) -> Iterator[bytes]:
        """A file of the size that it has when it is opened, whatever is done to it meanwhile."""
        fd = os.open(name, _PLAIN, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):  # swapped a moment ago
                self.left_out.append(os.fsdecode(entry.path))
                return
            left = entry.size = found.st_size
            self._buffer += tar.header(entry)
            while left:
                data = os.read(fd, min(left, PIECE)) or bytes(min(left, PIECE))
                left -= len(data)
                self._buffer += data
                if len(self._buffer) >= PIECE:
                    yield self._take()
            self._buffer += tar.padding(entry.size)
        finally:
            os.close(fd)
        self.files += 1
        self.size += entry.size

    def _take(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class Readable(Protocol):
    """An open file, as far as an archive is read from it."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer only at the end."""


def repacked(source: Readable) -> Iterator[bytes]:
    """An archive of the user's, of any kind that tarfile reads, compressed too, as one for a guest.

    A leading `/` or `./` is dropped from names, as tar(1) does. Raises FileError.
    """
    import tarfile  # not at the top: few need it

    try:
        with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|*") as archive:
            for member in archive:
                entry = _entry(member)
                if entry is None:
                    continue
                yield tar.header(entry)
                content = archive.extractfile(member) if entry.kind == tar.FILE else None
                while content is not None and (data := content.read(PIECE)):
                    yield data
                yield tar.padding(entry.size)
    except (tarfile.TarError, tar.ArchiveError, EOFError) as error:
        raise FileError(f"the archive cannot be read: {error}.") from error
    except OSError as error:  # of the decompressor, or the source
        raise FileError(f"the archive cannot be read: {error.strerror or error}.") from error
    yield tar.END


def _entry(member: tarfile.TarInfo) -> tar.Entry | None:
    path = _plain(member.name)
    if not path:
        return None
    tar.check_path(path)
    mode, time = member.mode & 0o777, int(member.mtime)
    if member.isdir():
        return tar.Entry(path, tar.FOLDER, mode, 0, time)
    if member.issym():
        return tar.Entry(path, tar.LINK, mode, 0, time, _raw(member.linkname))
    if member.islnk():
        return tar.Entry(path, tar.HARD_LINK, mode, 0, time, _plain(member.linkname))
    if member.isreg() and not member.issparse():
        return tar.Entry(path, tar.FILE, mode, member.size, time)
    raise tar.ArchiveError(f"{member.name} is no file, folder or link, or a sparse file")


def _plain(name: str) -> bytes:
    return b"/".join(part for part in _raw(name).split(b"/") if part not in (b"", b"."))


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
