"""Errors about files, from an errno of the guest's or of this machine's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..channel.failures import printable
from ..errors import (
    FileDeniedError,
    FileError,
    FileExistsHereError,
    FileMissingError,
    IsFolderError,
    NotFolderError,
)

_KINDS: dict[int, type[FileError]] = {
    errno.ENOENT: FileMissingError,
    errno.EACCES: FileDeniedError,
    errno.EPERM: FileDeniedError,
    errno.EROFS: FileDeniedError,
    errno.EEXIST: FileExistsHereError,
    errno.EISDIR: IsFolderError,
    errno.ENOTDIR: NotFolderError,
}
_HINTS = {
    errno.EROFS: "Shares are read-only unless :rw, the workspace with --ro; in a workspace git's "
    "hooks and configuration and corral.toml are read-only, too.",
    errno.ENOTEMPTY: "The folder is not empty; remove it with what is in it (recursive).",
    errno.ENOSPC: "What is written outside the workspace lies in the sandbox's memory (--memory).",
}


def of_guest(number: int, path: str) -> FileError:
    """What an errno of the guest's means. path: as the guest names it, unchecked."""
    kind = _KINDS.get(number, FileError)
    return kind(
        f"{printable(path)} in the sandbox: {os.strerror(number)}.",
        number=number,
        path=path,
        hint=_HINTS.get(number),
    )


def file_error(error: OSError, path: Path | str, *, here: bool) -> FileError:
    """What went wrong with a file of this machine. path: where the error names none."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(path)
    number = error.errno or 0
    side = " on this machine" if here else ""
    kind = _KINDS.get(number, FileError)
    return kind(f"{printable(name)}{side}: {error.strerror or error}.", number=number, path=name)
