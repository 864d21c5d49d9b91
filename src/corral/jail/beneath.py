"""Paths of the host, resolved by the kernel beneath a folder, and never out of it (openat2(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from msgspec import Struct

from ..errors import ConfigError

# linux/openat2.h; the number is the same everywhere (kernel, scripts/syscall.tbl)
_OPENAT2 = 437
_NO_MAGIC_LINKS, _NO_LINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10
_FLAGS = os.O_PATH | os.O_CLOEXEC
_TRIES = 16  # EAGAIN: somebody renamed folders meanwhile; the kernel gives up rather than err

_libc = ctypes.CDLL(None, use_errno=True)


class Located(Struct, frozen=True):
    """What is at a path. real: its path without links. folder: whether it is one."""

    real: str
    folder: bool
    device: int
    inode: int


def _open(root: int, path: str, resolve: int, flags: int = _FLAGS) -> int:
    how = struct.pack("QQQ", flags, 0, resolve)
    for _try in range(_TRIES):
        fd: int = _libc.syscall(_OPENAT2, root, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number), path)


def locate(path: str, beneath: str = "/") -> Located | None:
    """What is at the absolute `path`, links followed; None where there is nothing.

    A path that leads out of the folder `beneath` is a ConfigError, by whichever part of it.
    """
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(f"“{path[:80]}” is not an absolute path.")
    rule, start = _IN_ROOT, path.lstrip("/")
    if beneath != "/":
        rule = _BENEATH
        start = os.path.relpath(path, beneath)  # text: what `..` means is left to the kernel
        if start == ".." or start.startswith("../"):
            raise _leads_out(path, beneath)
    try:
        root = os.open(beneath, _FLAGS | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{beneath} cannot be used: {error.strerror}.") from error
    try:
        fd = _open(root, start or ".", rule | _NO_MAGIC_LINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.EXDEV:
            raise _leads_out(path, beneath) from error
        raise ConfigError(f"{path} cannot be used: {error.strerror}.") from error
    finally:
        os.close(root)
    try:
        return _named(fd, path)
    finally:
        os.close(fd)


def _leads_out(path: str, beneath: str) -> ConfigError:
    return ConfigError(
        f"{path} leads out of {beneath}.",
        hint="A link in it does, or “..”. Name a path that stays inside.",
    )


def _named(fd: int, path: str) -> Located:
    found = os.fstat(fd)
    real = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - text, as the kernel has it
    try:
        again = os.lstat(real)
    except OSError:
        again = None
    if again is None or (again.st_dev, again.st_ino) != (found.st_dev, found.st_ino):
        raise ConfigError(f"{path} is being changed.", hint="Try again when it is still.")
    return Located(real, stat.S_ISDIR(found.st_mode), found.st_dev, found.st_ino)


def without_links(folder: str, path: str) -> bool | None:
    """Whether `path` in a real folder is a folder; None where nothing is, or a link in it."""
    try:
        root = os.open(folder, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fd = _open(root, path, _BENEATH | _NO_LINKS)
    except OSError:
        return None
    finally:
        os.close(root)
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def entries(folder: str) -> list[tuple[str, str | None]]:
    """(name, a link's text or None) of what is in a real folder; no part of it may be a link."""
    root = os.open("/", _FLAGS | os.O_DIRECTORY)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = _open(root, folder.lstrip("/") or ".", _IN_ROOT | _NO_LINKS, flags)
    finally:
        os.close(root)
    try:
        found: list[tuple[str, str | None]] = []
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 - a descriptor
            linked = stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode)
            found.append((name, os.readlink(name, dir_fd=fd) if linked else None))
        return found
    finally:
        os.close(fd)
