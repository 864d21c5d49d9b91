"""Of what a snapshot was copied, so that what has not changed since need not be copied again.

A file of it stays when neither the user's nor the one in the snapshot was touched. Both are told by
their signatures, of which no guest can set the status time. As that is a coarse clock, and as a
program may write into a mapped file without a trace until the kernel has written it out, a file
that was changed shortly before it was copied is compared with what it held.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .model import Found, Signature
from .pack import Pack
from .tree import FILE, signature

ORIGIN = "origin"
VERSION = 1
# Seconds within which the kernel writes out and protects what is mapped (dirty_expire_centisecs and
# dirty_writeback_centisecs: 35), and a coarse clock goes on (FAT: 2), with something to spare.
SETTLED = 60.0
# Those whose times and inode numbers are this kernel's own: over a network they may be remembered
# ones. Not tmpfs, which notes no time when a mapped file is written.
_LOCAL = frozenset(("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs", "zfs"))
_SPARE = 64 << 20  # bytes of a pack that may be of no use any more, besides twice those that are


class Copied(msgspec.Struct, frozen=True, array_like=True):
    """A file that was copied. offset, size: of its content in the pack. here, work: signatures of
    the user's and of the copy. settled: it had not changed for some time.
    """

    offset: int
    size: int
    here: Signature
    settled: bool
    work: Signature = (0, 0, 0, 0)


class _Written(msgspec.Struct, array_like=True):
    """boot: of the host, as nothing here is synced. root: device and inode of the folder."""

    version: int
    boot: str
    root: tuple[int, int]
    files: list[tuple[bytes, Copied]]


def write(folder: Path, source: str, files: Mapping[str, Copied]) -> None:
    """Keep it, where times can be relied on; not synced, as another boot of the host ends its use.

    Raises OSError.
    """
    if not is_local(source, _mounts()):
        return
    named = [(os.fsencode(path), copied) for path, copied in files.items()]
    written = _Written(VERSION, _boot(), _identity(source), named)
    (folder / ORIGIN).write_bytes(msgspec.msgpack.encode(written))


def read(folder: Path, source: str) -> dict[str, Copied]:
    """What was kept; nothing when it is not of this folder, or from before the host was started."""
    try:
        written = msgspec.msgpack.decode((folder / ORIGIN).read_bytes(), type=_Written)
        mine = (VERSION, _boot(), _identity(source))
    except (OSError, ValueError):
        return {}
    if (written.version, written.boot, written.root) != mine or not is_local(source, _mounts()):
        return {}
    return {os.fsdecode(path): copied for path, copied in written.files}


def worth_it(files: Mapping[str, Copied], pack: int) -> bool:
    """Whether most of a pack of so many bytes is still of use."""
    return bool(files) and pack <= 3 * sum(copied.size for copied in files.values()) + _SPARE


class Reuse:
    """What of an earlier snapshot stays, see `host.copies.Earlier`. now: what is in it.

    stayed: what was found to, by path.
    """

    def __init__(
        self,
        files: Mapping[str, Copied],
        now: Mapping[str, Found],
        pack: Pack,
        device: int,
        begun: float,
        trash: int,
    ) -> None:
        self._files, self._now, self._pack = files, now, pack
        self._device, self._begun = device, begun
        self.trash = trash
        self.stayed: dict[str, Copied] = {}

    def stays(self, path: str, folder: int, name: str, status: os.stat_result) -> bool:
        """Whether a file of the snapshot is as it would be if it were copied now."""
        copied, found = self._files.get(path), self._now.get(path)
        if copied is None or found is None or found.kind != "file":
            return False
        if found.signature != copied.work or signature(status) != copied.here:
            return False
        if status.st_dev != self._device or copied.offset + copied.size > self._pack.end:
            return False
        if not copied.settled:
            if not self._holds(folder, name, copied):
                return False
            copied = msgspec.structs.replace(copied, settled=is_settled(status, self._begun))
        self.stayed[path] = copied
        return True

    def _holds(self, folder: int, name: str, copied: Copied) -> bool:
        with contextlib.suppress(OSError):
            fd = os.open(name, FILE, dir_fd=folder)
            try:
                status = os.fstat(fd)
                return (
                    stat.S_ISREG(status.st_mode)
                    and signature(status) == copied.here
                    and self._pack.equals(fd, copied.offset, copied.size)
                )
            finally:
                os.close(fd)
        return False


def is_settled(status: os.stat_result, now: float) -> bool:
    """Whether a file was left alone for some time before `now`, in seconds since 1970."""
    return status.st_ctime < now - SETTLED


def is_local(path: str, mounts: str) -> bool:
    """Whether a folder is on a file system of this host. mounts: as proc(5) has mountinfo."""
    real = Path(os.path.realpath(path))
    longest, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, further = line.partition(" - ")
        point = Path(_unescaped(fields.split(" ")[4]))
        if len(point.parts) >= longest and real.is_relative_to(point):
            longest, kind = len(point.parts), further.split(" ")[0]
    return kind in _LOCAL


def _unescaped(text: str) -> str:
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _identity(source: str) -> tuple[int, int]:
    status = Path(source).stat()
    return status.st_dev, status.st_ino
