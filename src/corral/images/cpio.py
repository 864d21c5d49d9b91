"""A deterministic cpio archive in the "newc" format, as the kernel unpacks it.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. The same entries give
the same bytes: sorted by name, time stamps 0, owner root, inode numbers counted from 1.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_MAX_DATA = 0xFFFFFFFF  # a size has eight hexadecimal digits


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. mode: type and permissions (stat.S_IF* | bits). device: major and minor."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | permissions, data)


def folder(permissions: int = 0o755) -> Entry:
    """A folder."""
    return Entry(stat.S_IFDIR | permissions)


def symlink(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, permissions: int) -> Entry:
    """A device node."""
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> Iterator[bytes]:
    """The archive in pieces. Names are absolute; folders that are missing are added (0755)."""
    named = {_relative(name): entry for name, entry in entries.items()}
    for name in list(named):
        for parent in _parents(name):
            named.setdefault(parent, folder())
    # a folder sorts before what is in it, so the kernel always finds it made
    for number, name in enumerate(sorted(named), start=1):
        yield from _record(name, named[name], number)
    yield from _record("TRAILER!!!", Entry(0), 0)


def _record(name: str, entry: Entry, number: int) -> Iterator[bytes]:
    if len(entry.data) > _MAX_DATA:
        raise ValueError(f"{name} is too large for a cpio archive")
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0),
        *(*entry.device, len(encoded), 0),
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    yield header + encoded + _padding(len(header) + len(encoded))
    if entry.data:
        yield entry.data + _padding(len(entry.data))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 4)


def _relative(name: str) -> str:
    parts = name.strip("/").split("/")
    if not name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not an absolute, plain path: {name!r}")
    return "/".join(parts)


def _parents(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))
