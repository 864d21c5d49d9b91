"""Reading configuration files by descriptor, and writing files that matter.

A project's corral.toml is written by others, so it is opened once, checked and read through that
one descriptor: what was hashed is what is used. It must be a regular file and no symbolic link.
Trust is recorded by real path; a link planted in one project that points to the accepted
corral.toml of another would carry that one's permissions over, and error messages about a
linked file of any kind could show its content.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import ConfigError, UsageError
from .text import printable

CONFIG_NAME = "corral.toml"
MAX_CONFIG = 1 << 20
"""Largest configuration file in bytes."""


def current_folder() -> Path:
    """The current folder; UsageError when it was removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be found: {error.strerror}.",
            hint="It was removed or is not accessible; change to another folder.",
        ) from error


def read_config(path: Path, *, follow: bool) -> bytes | None:
    """The content of the regular file `path`, None when there is none; ConfigError otherwise.

    follow: whether a symbolic link as its last part is followed (only for the user's own files).
    """
    shown = printable(str(path))
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise ConfigError(
                f"{shown} is a symbolic link, which is not followed for a project's file: "
                "it could lend this project what was accepted for another.",
                hint="Copy the file, or name it yourself with --config FILE.",
            ) from error
        raise ConfigError(f"{shown} cannot be read: {error.strerror}.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{shown} is not a regular file.")
        content = _read_bounded(descriptor, MAX_CONFIG + 1)
    except OSError as error:
        raise ConfigError(f"{shown} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_CONFIG:
        raise ConfigError(f"{shown} is larger than 1 MiB, the most that is read.")
    return content


def find_project_file(folder: Path) -> tuple[Path, bytes] | None:
    """The nearest corral.toml in `folder` (a real path) or above it, with its content."""
    for place in (folder, *folder.parents):
        candidate = place / CONFIG_NAME
        try:
            candidate.lstat()
        except OSError:
            continue  # none here, or a folder above that the user may not look into
        content = read_config(candidate, follow=False)
        if content is not None:
            return candidate, content
    return None


def write_atomically(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` by `content`: written beside it, synced, renamed, the folder synced.

    Raises OSError. A symbolic link at `path` is replaced, not followed.
    """
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - `name` is text from mkstemp
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_bounded(descriptor: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.read(descriptor, min(limit, 65536))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)
