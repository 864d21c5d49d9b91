"""A jail as a value: what one process is to see of the host, and no more. Pure.

Nothing is in a jail that was not put there: a new one has /proc, a small /dev and an empty /tmp.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .seccomp.target import Mode


class Expanded(Struct, frozen=True):
    """A path in which ~ and $NAME mean what they mean to the user; see `noescape`."""

    text: str


Source = str | Expanded


class HostBind(Struct, frozen=True, kw_only=True):
    """The host's `source` at `target`. target: None for where the source is.

    optional: left out where there is none. beneath: the folder that the source must be in,
    whatever links say; the host's root at the least.
    """

    source: Source
    target: str | None = None
    writable: bool = False
    optional: bool = False
    beneath: str = "/"


class Tmpfs(Struct, frozen=True):
    """An empty folder in memory. size: bytes at the most; None: half of the memory."""

    path: Source
    size: int | None = None
    mode: int = 0o755


class Denied(Struct, frozen=True):
    """A path of the jail that is not there, whatever is, or comes to be, at it on the host."""

    path: Source


class Link(Struct, frozen=True):
    """A symbolic link at `path` with the text `text`."""

    path: str
    text: str


class Text(Struct, frozen=True):
    """A small read-only file."""

    path: str
    content: str


Part = HostBind | Tmpfs | Denied | Link | Text


class Variable(Struct, frozen=True):
    """A variable. value: None to take the user's; needed: an error when that is not set."""

    name: str
    value: Source | None
    needed: bool = True


class Seccomp(Struct, frozen=True):
    """A profile: default, none, or a file's path."""

    profile: str
    mode: Mode = "errno"


class Limits(Struct, frozen=True):
    """What all its processes together may use; None: no limit.

    memory: bytes. cpu: percent of one processor. pids: processes and threads.
    """

    memory: int | None = None
    cpu: int | None = None
    pids: int | None = None


class Jail(Struct, frozen=True, kw_only=True):
    """A jail. parts: in the order of their making. path: folders of PATH, before the usual ones.

    session: whether commands have a session of their own. cwd: where they start, None for / or
    what `mount_cwd` mounts. seccomp: all of these hold; none given: the default profile.
    """

    parts: tuple[Part, ...] = ()
    variables: tuple[Variable, ...] = ()
    path: tuple[Source, ...] = ()
    network: bool = False
    session: bool = True
    hostname: str = "jail"
    passwd: bool = False
    cwd: Literal["mounted"] | Expanded | str | None = None
    seccomp: tuple[Seccomp, ...] = ()
    limits: Limits = Limits()
