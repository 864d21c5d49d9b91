"""Archives from a sandbox put on this machine's disk. They are hostile.

What an archive may hold is decided here (`check`), apart from how it is written: `Unpacker` makes
everything in a folder of its own beside the target, opens each folder by descriptor and never
follows a link, and moves the whole into place when it is complete. So an archive that is refused,
or a copy that is interrupted, changes nothing.

The strict reader of corral_guest.tar takes the place of tarfile, which holds headers of any size in
memory; whatever passes here, tarfile's own data filter (PEP 706) lets pass, too (a test holds the
two against each other).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from corral_guest import tar

from ..channel.failures import printable
from ..errors import FileError, UnsafeArchiveError
from .file_errors import file_error

ROOT = b"x"  # what the one file or folder is called in an archive that a guest is asked for
MAX_DEPTH = 200  # folders in folders: removing them needs a descriptor for each
MAX_ENTRIES = 1_000_000
MAX_NAMES = 256 << 20  # bytes of all paths, which are held in memory
RESERVE = 256 << 20  # bytes of the disk that an archive must leave free
_ENTRY_COST = 4096  # bytes of the disk that an empty file or folder may take
_SCRATCH = ".corral-cp-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check(entry: tar.Entry) -> list[bytes]:
    """The parts of its path, below ROOT included. Raises UnsafeArchiveError.

    Refused: paths that leave (tar.check_path), links that lead out, hard links, devices and pipes,
    set-id and sticky bits, times that no tar has, and depths beyond MAX_DEPTH.
    """
    try:
        parts = tar.check_path(entry.path)
    except tar.ArchiveError as error:
        raise refusal(entry.path, str(error)) from error
    if parts[0] != ROOT or len(parts) > MAX_DEPTH:
        raise refusal(entry.path, "it lies outside what was asked for, or too deep")
    if entry.mode & ~0o777:
        raise refusal(entry.path, "it has a set-id or sticky bit")
    if entry.time > tar.MAX_TIME:
        raise refusal(entry.path, "its time makes no sense")
    if entry.kind == tar.LINK:
        if not stays_within(entry.target, len(parts) - 2):
            raise refusal(entry.path, f"it is a link that leads out, to {shown(entry.target)}")
    elif entry.kind not in (tar.FILE, tar.FOLDER):
        raise refusal(entry.path, f"it is no file, folder or symbolic link ({entry.kind})")
    return parts


def stays_within(target: bytes, depth: int) -> bool:
    """Whether a link's target stays in the tree; the link lies `depth` folders below its root.

    `..` may stand only at the start of a target. Then a link in a folder that was made here, not
    reached through another link, cannot lead out, whatever links its target passes through.
    """
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while up < len(parts) and parts[up] == b"..":
        up += 1
    inside = not target.startswith(b"/") and up <= depth and b".." not in parts[up:]
    return inside and b"\0" not in target and len(target) <= tar.MAX_PATH


def refusal(path: bytes, reason: str) -> UnsafeArchiveError:
    """Why an archive is refused, with the name of the entry as the user knows it."""
    return UnsafeArchiveError(
        f"the sandbox sent {shown(path.partition(b'/')[2] or path)}, which is refused: {reason}.",
        hint="Nothing was copied. Copy a part without it, or pack it in the sandbox as one file "
        "(tar) and copy that.",
    )


def shown(path: bytes) -> str:
    """A path of a guest's, safe to print."""
    return printable(path.decode("utf-8", "backslashreplace"))


class Unpacker:
    """Builds what an archive holds beside `target`, and puts it in its place.

    target: a path whose folder exists. A file there is replaced; a folder is filled, files of the
    same names in it replaced, its mode kept; links there are never followed. Used as a context
    manager, which removes what was not put in place. Raises UnsafeArchiveError, FileError.
    """

    def __init__(self, target: Path) -> None:
        if target.name in ("", ".."):
            target = target.resolve()
        self.target = target
        self.files = 0
        self.size = 0
        self._name = os.fsencode(target.name)
        self._reader = tar.Reader()
        self._entry: tar.Entry | None = None
        self._file = -1
        self._folders: list[tuple[bytes, int, int]] = []  # path, mode, time
        self._entries = 0
        self._names = 0
        self._room = 0
        self._parts: list[bytes] = []
        self._fd = -1  # of the folder whose path is _parts

    def __enter__(self) -> Unpacker:
        with self._local():
            self._parent = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sweep(self._parent)
                self._scratch = f"{_SCRATCH}{secrets.token_hex(6)}"
                os.mkdir(self._scratch, 0o700, dir_fd=self._parent)
                self._staging = os.open(self._scratch, _FOLDER, dir_fd=self._parent)
                fcntl.flock(self._staging, fcntl.LOCK_EX)  # see _sweep
                disk = os.fstatvfs(self._staging)
                self._room = disk.f_bavail * disk.f_frsize - RESERVE
            except BaseException:
                os.close(self._parent)
                raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in (self._file, self._fd, self._staging):
            if fd >= 0:
                os.close(fd)
        _remove(self._scratch, self._parent)
        os.close(self._parent)

    def feed(self, data: bytes) -> None:
        """The next bytes of the archive."""
        try:
            for event in self._reader.feed(data):
                if isinstance(event, bytes):
                    with self._local():
                        _write(self._file, event)
                else:
                    self._begin(event)
                if self._file >= 0 and not self._reader.left:
                    self._finish()
        except tar.ArchiveError as error:
            raise UnsafeArchiveError(f"the sandbox sent a damaged archive: {error}.") from error

    @property
    def ended(self) -> bool:
        """Whether the archive's end was seen."""
        return self._reader.ended

    def _begin(self, entry: tar.Entry) -> None:
        parts = check(entry)
        self._entries += 1
        self._names = _counted(self._names, entry)
        self.size += entry.size
        if self._entries > MAX_ENTRIES or self._entries * _ENTRY_COST + self.size > self._room:
            raise UnsafeArchiveError(
                f"what the sandbox sent does not fit here: {self._entries} files and folders of "
                f"{self.size} bytes so far.",
                hint=f"{RESERVE >> 20} MiB of the disk are left free, and a copy holds at most "
                f"{MAX_ENTRIES} files. Nothing was copied.",
            )
        self._entry = entry
        try:
            folder = self._open(parts[:-1])
            if entry.kind == tar.FOLDER:
                os.mkdir(parts[-1], 0o700, dir_fd=folder)
                self._folders.append((entry.path, entry.mode, entry.time))
            elif entry.kind == tar.LINK:
                os.symlink(entry.target, parts[-1], dir_fd=folder)
            else:
                self._file = os.open(parts[-1], _NEW, 0o600, dir_fd=folder)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise refusal(entry.path, "it is there twice, or in no folder") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise refusal(entry.path, "it is there twice, or in no folder") from error
            raise file_error(error, self.target, here=True) from error

    def _open(self, parts: list[bytes]) -> int:
        """The folder of these parts, below where everything is built."""
        if not parts:
            return self._staging
        if self._fd < 0 or parts != self._parts:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
            self._fd = _descend(self._staging, parts)
            self._parts = parts
        return self._fd

    def _finish(self) -> None:
        assert self._entry is not None
        with self._local():
            os.fchmod(self._file, self._entry.mode)
            os.utime(self._file, (self._entry.time, self._entry.time))
            if len(self._entry.path) == len(ROOT):  # the one file that matters; a tree is many
                os.fsync(self._file)
            os.close(self._file)
        self._file = -1
        self.files += 1

    def put(self) -> None:
        """Move the whole to the target. Raises FileError when something there is in the way."""
        if not self._reader.ended or not self._entries:
            raise UnsafeArchiveError(
                "the sandbox sent an archive without its end, or an empty one."
            )
        with self._local():
            filled = set(_place(self._staging, ROOT, self._parent, self._name, ROOT, do=False))
            set(_place(self._staging, ROOT, self._parent, self._name, ROOT, do=True))
            # Last: a folder that is not writable could not be moved, and takes no files.
            for path, mode, time in reversed(self._folders):
                if path in filled:
                    continue
                fd = _descend(self._parent, [self._name, *path.split(b"/")[1:]])
                try:
                    os.fchmod(fd, mode)
                    os.utime(fd, (time, time))
                finally:
                    os.close(fd)

    @contextlib.contextmanager
    def _local(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise file_error(error, self.target, here=True) from error


def _descend(start: int, parts: list[bytes]) -> int:
    """Open a folder by its parts, one after the other, none of which may be a link."""
    fd = os.dup(start)
    for part in parts:
        try:
            below = os.open(part, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _place(
    source: int, old: bytes, parent: int, new: bytes, path: bytes, *, do: bool
) -> Iterator[bytes]:
    """Move `old` in folder `source` to `new` in `parent`; without `do` only see if it can.

    Iterates over the folders that were there and are filled, as the archive (`path`) calls them.
    """
    ours = os.stat(old, dir_fd=source, follow_symlinks=False)
    try:
        theirs = os.stat(new, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        theirs = None
    folder = stat.S_ISDIR(ours.st_mode)
    if theirs is not None and folder != stat.S_ISDIR(theirs.st_mode):
        number = errno.ENOTDIR if folder else errno.EISDIR
        raise OSError(number, os.strerror(number), os.fsdecode(new))
    if theirs is None or not folder:
        if do:
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=parent)
        return
    yield path
    inner = os.open(old, _FOLDER, dir_fd=source)
    try:
        outer = os.open(new, _FOLDER, dir_fd=parent)
        try:
            for name in map(os.fsencode, os.listdir(inner)):  # noqa: PTH208 - by descriptor
                yield from _place(inner, name, outer, name, path + b"/" + name, do=do)
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _sweep(parent: int) -> None:
    """Remove what copies into this folder have left that were killed: nobody holds its lock."""
    for name in os.listdir(parent):
        if not name.startswith(_SCRATCH):
            continue
        try:
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except OSError:  # no folder of ours
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(name, parent)
        except BlockingIOError:
            pass  # at work
        finally:
            os.close(fd)


def _remove(name: str, parent: int) -> None:
    """Remove a folder of ours. A sandbox may have made it deeper than we ever do: let it stay."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(name, ignore_errors=True, dir_fd=parent)


def _counted(names: int, entry: tar.Entry) -> int:
    """The bytes of all paths so far, with this entry's. Raises UnsafeArchiveError."""
    names += len(entry.path)
    if names > MAX_NAMES:
        raise UnsafeArchiveError(
            f"the sandbox sent paths of more than {MAX_NAMES >> 20} MiB.",
            hint="Nothing was copied. Copy a part, or pack it in the sandbox as one file (tar).",
        )
    return names


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Checked:
    """An archive from a sandbox passed on as one that is safe to hand out.

    name: what ROOT is called in it; FileError if that would leave where it is unpacked. Raises
    UnsafeArchiveError.
    """

    def __init__(self, name: bytes) -> None:
        try:
            if name != b".":
                tar.check_path(name)
        except tar.ArchiveError as error:
            raise FileError(
                f"what is in an archive cannot be called {shown(name)}: {error}.",
                hint="Give it a name of its own.",
            ) from error
        self._name = name
        self._reader = tar.Reader()
        self._pad = b""
        self._kinds: dict[bytes, str] = {}
        self._names = 0

    @property
    def ended(self) -> bool:
        """Whether the archive's end was seen."""
        return self._reader.ended

    def feed(self, data: bytes) -> bytes:
        """What to pass on for these bytes."""
        out = bytearray()
        if self._reader.ended:
            return b""
        try:
            for event in self._reader.feed(data):
                if isinstance(event, bytes):
                    out += event
                else:
                    self._check(event)
                    event.path = self._name + event.path[len(ROOT) :]
                    out += tar.header(event)
                    self._pad = tar.padding(event.size)
                if not self._reader.left:
                    out += self._pad
                    self._pad = b""
        except tar.ArchiveError as error:
            raise UnsafeArchiveError(f"the sandbox sent a damaged archive: {error}.") from error
        if self._reader.ended:
            out += tar.END
        return bytes(out)

    def _check(self, entry: tar.Entry) -> None:
        """Each path once, and in a folder that came before it: so no link is gone through."""
        parts = check(entry)
        self._names = _counted(self._names, entry)
        parent = entry.path.rpartition(b"/")[0]
        known = self._kinds
        if entry.path in known or (len(parts) > 1 and known.get(parent) != tar.FOLDER):
            raise refusal(entry.path, "it is there twice, or in no folder")
        if len(known) >= MAX_ENTRIES:
            raise UnsafeArchiveError(f"the sandbox sent more than {MAX_ENTRIES} files and folders.")
        known[entry.path] = entry.kind
