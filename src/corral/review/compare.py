"""What changed between a snapshot's beginning and now, and how that stands to the user's folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Mapping

from ..host.copies import entered
from .model import Change, Found, Side, Standing, Was
from .names import is_git
from .pack import Pack, same
from .patch import MAX_SHOWN, Contents
from .snapshot import Base
from .tree import file_in, look, scan, signature

_MAX_HASHED = 256 << 20  # bytes of one file, to find out whether it was only renamed
_MOST_HASHED = 1 << 30  # bytes of all of them
_PIECE = 1 << 20
_BLOCKED = (errno.ENOTDIR, errno.ELOOP)
RESERVED = ".corral-apply"  # how names end that applying makes beside a file
ABOVE = "what is above it is no folder here"
_OURS = re.compile(rf"\.[0-9a-f]{{20}}{re.escape(RESERVED)}")


class Comparison:
    """A snapshot beside what became of it. base, pack: how it was. work: a descriptor of it now.

    Everything is looked at when it is asked for; the guest may go on writing meanwhile.
    """

    def __init__(self, base: Base, pack: Pack, work: int) -> None:
        self.base, self.pack, self.work = base, pack, work
        self.found: Mapping[str, Found] = {}

    def changes(self) -> list[Change]:
        """All changes, by path. Raises ReviewError, OSError."""
        self.found = found = scan(self.work)
        names = self.base.names
        masked = {path for path, was in names.items() if was.hidden}
        closed = {path for path, now in found.items() if now.kind == "other"}
        changes: list[Change] = []
        for path in sorted(names.keys() | found.keys()):
            was, now = names.get(path), found.get(path)
            if (was is not None and was.hidden) or (masked and _below(path, masked)):
                continue
            if now is None and closed and _below(path, closed):  # perhaps it is still there
                continue
            if _OURS.fullmatch(path.rpartition("/")[2]):  # left by an interrupted discard
                continue
            change = self._change(path, was, now)
            if change is not None:
                changes.append(change)
        return changes

    def _change(self, path: str, was: Was | None, now: Found | None) -> Change | None:
        old = was.side if was is not None and was.kind in ("file", "link") else None
        new = now.side if now is not None and now.kind in ("file", "link") else None
        problem = ""
        if now is not None and now.kind == "other":
            if was is not None and was.kind == "other":
                return None
            problem = "it is no file, folder or link that can be read"
        if old is None and new is None and not problem:
            return None
        if was is not None and now is not None and old and new and self._same(path, was, now):
            return None
        return Change(path=path, old=old, new=new, repository=is_git(path), problem=problem)

    def _same(self, path: str, was: Was, now: Found) -> bool:
        if was.kind != now.kind:
            return False
        if was.kind == "link":
            return was.link == os.fsencode(now.link)
        if was.side.executable != now.side.executable:
            return False
        if was.work == now.signature:
            return True
        return self.holds(self.work, path, was)

    def holds(self, root: int, path: str, was: Was) -> bool:
        """Whether the file `path` below a folder has the content that one had."""
        with contextlib.suppress(OSError), file_in(root, path) as fd:
            return self.pack.equals(fd, was.offset, was.size)
        return False

    def matches(self, root: int, path: str, was: Was | None) -> bool:
        """Whether a path below a folder is what one was. A folder counts as nothing."""
        now = there_in(root, path)
        if was is None or now is None or now.kind == "folder":
            return was is None and (now is None or now.kind == "folder")
        if was.kind != now.kind:
            return False
        if was.kind == "link":
            return was.link == os.fsencode(now.link)
        return was.side.executable == now.side.executable and self.holds(root, path, was)

    # Contents

    def contents(self, change: Change, limit: int = MAX_SHOWN) -> Contents:
        """What both sides hold; None for more than `limit` bytes, or what cannot be read."""
        return Contents(
            self.old_content(change.path, change.old, limit),
            self.new_content(change.path, change.new, limit),
        )

    def old_content(self, path: str, side: Side | None, limit: int = MAX_SHOWN) -> bytes | None:
        """What it held before."""
        if side is None or side.kind == "link":
            return os.fsencode(side.link) if side else b""
        was = self.base.names[path]
        return self.pack.read(was.offset, was.size) if was.size <= limit else None

    def new_content(self, path: str, side: Side | None, limit: int = MAX_SHOWN) -> bytes | None:
        """What it holds now."""
        if side is None or side.kind == "link":
            return os.fsencode(side.link) if side else b""
        try:
            with file_in(self.work, path) as fd:
                data = b""
                while len(data) <= limit and (piece := os.read(fd, limit + 1 - len(data))):
                    data += piece
                return data if len(data) <= limit else None
        except OSError:  # it is gone, or cannot be read
            return None

    def digests(self, changes: list[Change]) -> dict[str, bytes]:
        """Of files that were added or removed, where one of each has the same size: candidates."""
        gone = {c.old.size for c in changes if c.old and not c.new and c.old.size}
        come = {c.new.size for c in changes if c.new and not c.old and c.new.size}
        sizes = {size for size in gone & come if size <= _MAX_HASHED}
        found: dict[str, bytes] = {}
        left = _MOST_HASHED
        for change in changes:
            side = change.old or change.new
            if side is None or (change.old and change.new) or side.size not in sizes:
                continue
            left -= side.size
            if left < 0:  # what is left is shown as removed and added
                break
            digest = self._digest(change.path, side, old=change.old is not None)
            if digest is not None:
                found[change.path] = digest
        return found

    def results(self, changes: list[Change]) -> dict[str, str]:
        """What tells what these changes leave from what others leave at the same paths.

        Of what is too large to be read it is nobody else's.
        """
        found: dict[str, str] = {}
        left = _MOST_HASHED
        for change in changes:
            if change.new is None:
                continue
            left -= change.new.size
            readable = change.new.size <= _MAX_HASHED and left >= 0
            digest = self._digest(change.path, change.new, old=False) if readable else None
            found[change.path] = digest.hex() if digest else f"{id(self)} {change.path}"
        return found

    def _digest(self, path: str, side: Side, *, old: bool) -> bytes | None:
        if side.kind == "link":
            return hashlib.sha256(b"link " + os.fsencode(side.link)).digest()
        if old:
            was = self.base.names[path]
            return _hash(lambda at: self.pack.read(was.offset + at, min(_PIECE, was.size - at)))
        try:
            with file_in(self.work, path) as fd:
                return _hash(lambda at: os.pread(fd, min(_PIECE, max(0, side.size - at)), at))
        except OSError:
            return None

    # The user's folder

    def standing(self, here: int, change: Change) -> Standing:
        """How a change stands to the user's folder, of which `here` is a descriptor."""
        try:
            now = found_in(here, change.path)
        except OSError as error:
            if error.errno in _BLOCKED:
                return Standing("conflict", ABOVE)
            return Standing("conflict", f"it cannot be looked at here: {error.strerror}")
        if now is not None and now.kind in ("folder", "other"):
            what = "a folder" if now.kind == "folder" else "no file"
            if change.new is None and change.old is None:
                return Standing("conflict", f"it is {what} here")
            was = self.base.names.get(change.path)
            if now.kind == "folder" and was is not None and was.kind == "folder" and change.new:
                return Standing("clean")  # it became a file; whether it is empty, applying sees
            return Standing("conflict", f"it is {what} here")
        if self.is_new(here, change, now):
            return Standing("done")
        if self.is_old(here, change, now):
            return Standing("clean")
        if change.old is None:
            return Standing("conflict", "there is another one here")
        if now is None:
            return Standing("conflict", "it was removed here")
        return Standing("conflict", "it was changed here, too")

    def is_old(self, here: int, change: Change, now: Found | None) -> bool:
        """Whether the user's is as it was when the snapshot was made, by its content: a program
        may write into a mapped file without a trace in its times.
        """
        if change.old is None or now is None:
            return change.old is None and now is None
        was = self.base.names[change.path]
        if not _alike(change.old, now):
            return False
        return now.kind == "link" or self.holds(here, change.path, was)

    def is_new(self, here: int, change: Change, now: Found | None) -> bool:
        """Whether the user's is as the change would make it."""
        if change.new is None or now is None:
            return change.new is None and now is None
        if not _alike(change.new, now):
            return False
        if now.kind == "link":
            return True
        if now.size != change.new.size:
            return False
        try:
            with file_in(self.work, change.path) as one, file_in(here, change.path) as other:
                return equal(one, other)
        except OSError:
            return False


def _hash(read: Callable[[int], bytes]) -> bytes:
    digest, at = hashlib.sha256(), 0
    while data := read(at):
        digest.update(data)
        at += len(data)
    return digest.digest()


def equal(one: int, other: int) -> bool:
    """Whether two open files hold the same."""
    size = os.fstat(one).st_size
    return size == os.fstat(other).st_size and same(one, 0, other, 0, size)


def found_in(root: int, path: str) -> Found | None:
    """What a path is below a folder, no link followed. Raises OSError (ENOTDIR, ELOOP)."""
    parent, _, name = path.rpartition("/")
    try:
        with entered(root, parent) as folder:
            return look(folder, name)
    except FileNotFoundError:
        return None


def there_in(root: int, path: str) -> Found | None:
    """The same; what is below no folder, or cannot be looked at, is nothing."""
    try:
        return found_in(root, path)
    except OSError:
        return None


def steady(root: int, path: str, take: Pack) -> tuple[int, int, tuple[int, int, int, int], int]:
    """Put a file's content into a pack; (offset, size, signature, mode).

    Raises OSError, BlockingIOError when it is being written.
    """
    with file_in(root, path) as fd:
        for _ in range(3):
            before = os.fstat(fd)
            offset, size = take.add(fd)
            if signature(os.fstat(fd)) == signature(before) and size == before.st_size:
                return offset, size, signature(before), before.st_mode & 0o777
    raise BlockingIOError(errno.EAGAIN, "it is being written", path)


def _alike(side: Side, now: Found) -> bool:
    if side.kind != now.kind:
        return False
    if side.kind == "link":
        return side.link == now.link
    return side.executable == now.side.executable


def _below(path: str, folders: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:n]) in folders for n in range(1, len(parts)))
