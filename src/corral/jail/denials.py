"""What a jail denies: names that are left out of every folder in which they are, or could be.

A mount over a name hides it only while nobody on the host puts another file there: renaming over
it takes the mount away. So a folder with a denied name is not mounted as it is, but made anew of
memory with each of its other entries mounted, and closed: no further name can appear in it, from
either side. Denied is a place on the host, under whichever name a jail has it: a path is read as
one of the jail's, and as one of the host's.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Sequence

from ..errors import ConfigError
from ..proc.bwrap import Access, Bind, Memory, Seal, Step, Symlink
from . import beneath
from .mount import Mount

_PLAIN = "Write the path without “..”."
Names = dict[str, "Names"]  # a tree of names; what has none below it is denied


class Denials:
    """The denied paths of a jail, by its mounts. idle: those that none of its mounts could have."""

    def __init__(self, paths: Sequence[tuple[str, str]], mounts: Sequence[Mount]) -> None:
        """paths: each as named, and with the jail's own links followed. Raises ConfigError."""
        self._jail = tuple(dict.fromkeys(path for names in paths for path in names))
        host: dict[str, None] = {}
        idle = []
        for names in paths:
            found = [place for path in dict.fromkeys(names) for place in _on_host(path, mounts)]
            if not any(_concerns(names, found, mount) for mount in mounts):
                idle.append(names[0])
            host |= dict.fromkeys(found)
        self._host = tuple(host)
        self.idle = tuple(idle)

    def hides(self, mount: Mount) -> bool:
        """Whether nothing of it is to be there."""
        inside = any(_within(mount.target, path) for path in self._jail)
        outside = mount.real is not None and any(_within(mount.real, p) for p in self._host)
        return inside or outside

    def steps(self, mount: Mount) -> list[Step]:
        """The mount, without what is denied in it."""
        names: Names = {}
        if mount.real is not None and mount.folder:
            for path in self._host:
                if path.startswith(mount.real.rstrip("/") + "/"):
                    _add(names, path[len(mount.real.rstrip("/")) + 1 :].split("/"))
        if not names or mount.real is None:
            return [mount.step]
        access = Access.WRITABLE if mount.writable else Access.READ_ONLY
        return _without(mount.real, mount.target, names, access)


def _concerns(names: Sequence[str], host: Sequence[str], mount: Mount) -> bool:
    """Whether a mount holds one of these paths, or is in one."""
    if any(_within(mount.target, name) for name in names):
        return True
    real = mount.real
    return real is not None and any(_within(p, real) or _within(real, p) for p in host)


def _on_host(path: str, mounts: Sequence[Mount]) -> list[str]:
    """Where a path is on the host, read as the jail's, and as the host's own."""
    above = [m for m in mounts if _within(path, m.target) and m.real is not None]
    if not above:
        return _places(path)
    mount = max(above, key=lambda m: len(m.target))
    assert mount.real is not None
    named = posixpath.join(mount.real, path[len(mount.target) :].lstrip("/"))
    found = _places(named)
    if named != path:
        if ".." in path.split("/"):  # it is one thing in the jail and another on the host
            raise ConfigError(f"{path} cannot be denied: it is not below one folder.", hint=_PLAIN)
        # Where the user may not look nothing can be mounted from, and it is one of the jail's.
        with contextlib.suppress(ConfigError):
            found += _places(path)
    return found


def _places(path: str) -> list[str]:
    """Of the host: the name, and what a link of that name leads to."""
    found = [_settled(path)]
    at = beneath.locate(path)
    if at is not None:
        found.append(at.real)
    return found


def _settled(path: str) -> str:
    """The path with its folders' links followed, as far as there are folders, and its own name."""
    folder, name = posixpath.split(path.rstrip("/"))
    missing = [name]
    while (at := beneath.locate(folder)) is None:
        folder, name = posixpath.split(folder)
        missing.insert(0, name)
    if ".." in missing:  # what it would mean depends on what comes to be there
        raise ConfigError(f"{path} cannot be denied: there is no such folder.", hint=_PLAIN)
    return posixpath.join(at.real, *missing)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _add(names: Names, parts: Sequence[str]) -> None:
    """Deny parts[0]/parts[1]/...; what is denied above it already stays so."""
    first, rest = parts[0], parts[1:]
    if not rest:
        names[first] = {}
    elif first not in names:
        names[first] = {}
        _add(names[first], rest)
    elif names[first]:
        _add(names[first], rest)


def _without(folder: str, target: str, names: Names, access: Access) -> list[Step]:
    steps: list[Step] = [Memory(target)]
    try:
        found = beneath.entries(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}, of which a part is denied, cannot be read: {error.strerror}."
        ) from error
    for name, text in found:
        place, inner = f"{target}/{name}", names.get(name)
        if inner is None:
            real = os.path.join(folder, name)  # noqa: PTH118 - text in, text out
            own = (
                Symlink(text, place) if text is not None else Bind(real, place, access, pinned=True)
            )
            steps.append(own)
        elif inner and text is None and beneath.without_links(folder, name):
            steps += _without(f"{folder}/{name}", place, inner, access)
    return [*steps, Seal(target)]
