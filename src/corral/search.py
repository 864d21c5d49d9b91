"""Which programs of this machine corral starts: none that a sandbox or another user put there.

PATH often leads into a workspace (an activated .venv, direnv's folders), and a workspace is what
sandboxes write to. A `bwrap` or `git` planted there would be run on the host, by the next corral.
So programs are looked for where the system has them and only then on the user's PATH, and whatever
is on the way to one, links and what they lead to included, is nothing that a sandbox can have
changed (the current folder, and every folder that one had, see `note`), nor another user.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import paths
from .errors import HostError

SYSTEM_FOLDERS = (
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    # Where daemons and administration tools are that are not on every user's PATH.
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/libexec",
    "/usr/lib/qemu",
    # NixOS: first what may change the user's id, such as sudo.
    "/run/wrappers/bin",
    "/run/current-system/sw/bin",
)
_STORES = ("/nix/store", "/gnu/store")
_NOTED = "changeable"  # a file of the state folder: a path on each line
_MANY = 2000  # lines, from which on folders that are gone are left out
_LINKS = 40  # as the kernel follows (path_resolution(7))

Step = tuple[str, os.stat_result]
"""What is passed on the way to a file: its absolute path, and its lstat(2)."""


def steps(absolute: str, root: Path) -> list[Step]:
    """Everything on the way to a file, which comes last: folders, links and what they lead to.

    root: the folder that stands for /; links stay in it. Raises OSError.
    """
    base = str(root).rstrip("/")
    at, passed, links = "", [("/", os.lstat(root))], 0
    left = absolute.split("/")[::-1]
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        here = f"{at}/{part}"
        status = os.lstat(base + here)
        passed.append((here, status))
        if not stat.S_ISLNK(status.st_mode):
            at = here
            continue
        links += 1
        if links > _LINKS:
            raise OSError(f"too many links on the way to {absolute}")
        target = os.readlink(base + here)  # noqa: PTH115
        at = "" if target.startswith("/") else at
        left += target.split("/")[::-1]
    return passed


def is_sound(passed: Sequence[Step], changeable: frozenset[str]) -> bool:
    """Whether only root and the user decide what is there, and no sandbox had a part of it.

    Root is also who / belongs to: in a user namespace that is another id. Access control lists are
    not looked at, but for what the mode shows of them.
    """
    owners = {0, os.getuid(), passed[0][1].st_uid}
    return all(
        path not in changeable and status.st_uid in owners and not _open_to_others(status)
        for path, status in passed
    )


def _open_to_others(status: os.stat_result) -> bool:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return False
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return False  # as /tmp: what is there is replaced by its owner only
    if mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and _has_others(status.st_gid)


@functools.cache
def _has_others(gid: int) -> bool:
    """Whether a group has members other than root and the user."""
    if gid == 0:
        return False
    members = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid}
    own = {"root"}
    with contextlib.suppress(KeyError):  # ids without a name are usual in containers
        own.add(pwd.getpwuid(os.getuid()).pw_name)
    with contextlib.suppress(KeyError):
        members |= set(grp.getgrgid(gid).gr_mem)
    return bool(members - own)


def changeable() -> frozenset[str]:
    """Folders that a sandbox can have changed: the current one, and those noted.

    The current folder is the project, except where it is no folder to be one: the home, say. Real
    paths. A folder that holds the system's programs is none of them: without those corral runs
    nothing.
    """
    found = set(_noted())
    with contextlib.suppress(FileNotFoundError):  # it was removed
        current = os.getcwd()  # noqa: PTH109
        if not any(_beneath(home, current) for home in _homes()):
            found.add(current)
    return frozenset(path for path in found if not _is_systems(path))


def note(folders: Iterable[str]) -> None:
    """Remember folders that a sandbox gets to write to (real paths). Raises HostError."""
    state = str(paths.state_dir())
    wanted = {path for path in folders if not _is_systems(path) and not _beneath(path, state)}
    if wanted <= set(_noted()):
        return
    file = Path(state) / _NOTED
    try:
        lock = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _noted()
            if len(known) > _MANY:
                known = [path for path in known if os.path.lexists(path)]
            lines = dict.fromkeys((*known, *sorted(wanted)))
            temporary = file.with_name(f".{_NOTED}.{os.getpid()}")
            temporary.write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))
            temporary.replace(file)
        finally:
            os.close(lock)
    except OSError as error:
        raise HostError(f"{file} cannot be written: {error.strerror}.") from error


def _noted() -> list[str]:
    try:
        content = (paths.state_dir() / _NOTED).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{_NOTED} in the state folder: {error.strerror}.") from error
    return [os.fsdecode(line) for line in content.split(b"\n") if line]


def without(environ: Mapping[str, str], folders: Iterable[str]) -> dict[str, str]:
    """The user's environment, without what leads into these folders (real paths).

    A PATH with a project's .venv/bin in it is usual, and so are PYTHONPATH and NODE_PATH: a program
    for a key would be run, or would run another, from where the sandbox can put one. So such items
    are left out, whatever the variable, and variables of which nothing is left.
    """
    inside = tuple(folders)
    kept = {}
    for name, value in environ.items():
        items = value.split(":")
        outside = [item for item in items if not leads_into(item, inside)]
        if outside or not items:
            kept[name] = ":".join(outside)
    return kept


def leads_into(path: str, folders: Iterable[str]) -> bool:
    """Whether an absolute path, as it is written or with its links resolved, is in one of them."""
    if not path.startswith("/"):
        return False
    forms = (os.path.normpath(path), os.path.realpath(path))
    return any(_beneath(form, each) for each in folders for form in forms)


def _beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_systems(path: str) -> bool:
    """Whether a folder is or holds one of the system's, or is in a store of packages."""
    if any(_beneath(path, store) for store in _STORES):
        return True
    return any(_beneath(each, path) for each in (*_STORES, *SYSTEM_FOLDERS))


def _homes() -> list[str]:
    """The user's homes: HOME's, and the account's."""
    found = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # a uid without an entry is usual in containers
        found.append(pwd.getpwuid(os.getuid()).pw_dir)
    return [os.path.realpath(home) for home in found if home]
