"""Branches of a git repository, read and made as plain files: no git is run on a repository that
a guest could write. Source: gitrepository-layout(5).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from ..host.copies import entered
from .tree import file_in

ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_SMALL = 64 << 20  # bytes of packed-refs
_HEADS = "refs/heads/"
_TRIES = 20
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def small(here: int, path: str) -> str:
    """What a file below a folder holds, or "" when there is none that can be read."""
    try:
        with file_in(here, path) as fd, open(os.dup(fd), "rb") as file:
            return file.read(_MAX_SMALL).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def packed(here: int) -> dict[str, str]:
    """The commits of the references that are packed, by name."""
    found = {}
    for line in small(here, ".git/packed-refs").splitlines():
        number, _, name = line.partition(" ")
        if ID.fullmatch(number):
            found[name.strip()] = number
    return found


def head(here: int) -> tuple[str, str]:
    """The reference that is checked out ("" when none is) and its commit ("" when it has none)."""
    text = small(here, ".git/HEAD").strip()
    if not text.startswith("ref: "):
        return "", text if ID.fullmatch(text) else ""
    name = text[5:].strip()
    if not re.fullmatch(r"refs/[\w./@+-]+", name) or ".." in name:
        return "", ""
    commit = small(here, f".git/{name}").strip() or packed(here).get(name, "")
    return name, commit if ID.fullmatch(commit) else ""


def is_taken(here: int, branch: str) -> bool:
    """Whether there is a branch of that name, or one that is in its way."""
    name = _HEADS + branch
    names = set(packed(here))
    parts = branch.split("/")
    above = {_HEADS + "/".join(parts[:n]) for n in range(1, len(parts))}
    if name in names or names & above or any(each.startswith(name + "/") for each in names):
        return True
    return _exists(here, f".git/{name}") or any(_is_file(here, f".git/{each}") for each in above)


def _exists(here: int, path: str) -> bool:
    parent, _, name = path.rpartition("/")
    with contextlib.suppress(OSError), entered(here, parent) as folder:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _is_file(here: int, path: str) -> bool:
    try:
        with file_in(here, path):
            return True
    except OSError:
        return False


def start_branch(work: int, wanted: str) -> tuple[str, list[str]]:
    """Have the repository in the folder `work`, a copy of our own, on a new branch of its commit.

    Returns its name, another than `wanted` where that is taken, and the files that were written;
    "" where there is no repository, or one that keeps its branches otherwise. Raises OSError.
    """
    try:
        with entered(work, ".git"):
            pass
    except OSError:  # none, or a file or link that leads to one elsewhere
        return "", []
    current, commit = head(work)
    if not commit and (not current or _exists(work, ".git/reftable")):
        return "", []
    branch = next((name for name in _names(wanted) if not is_taken(work, name)), "")
    if not branch:
        return "", []
    written = []
    if commit:
        *above, name = f"{_HEADS}{branch}".split("/")
        path = ".git"
        for part in above:
            with entered(work, path) as folder, contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            path += f"/{part}"
        with entered(work, path) as folder:
            _put(folder, name, f"{commit}\n")
        written.append(f"{path}/{name}")
    with entered(work, ".git") as folder:
        _put(folder, "HEAD", f"ref: {_HEADS}{branch}\n")
    return branch, [*written, ".git/HEAD"]


def _names(wanted: str) -> Iterator[str]:
    for name in (wanted, wanted.replace("/", "-")):
        yield name
        yield from (f"{name}-{number}" for number in range(2, _TRIES))


def _put(folder: int, name: str, text: str) -> None:
    """Write a file, in place of one of the same name; nothing else has the folder yet."""
    beside = f".{name}.corral"
    fd = os.open(beside, _FILE, 0o644, dir_fd=folder)
    with open(fd, "w") as file:
        file.write(text)
    os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
