"""A jail as a guest's supervisor makes it, of the same parts as one on the host. Pure.

Paths are not looked up here: what an agent's export and the toolbox hold was found, pinned and made
read-only when these trees were assembled on the host.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from ..errors import ConfigError
from .model import HostBind, Jail, Limits, Source, Tmpfs

_PERIOD = 100_000  # microseconds: the kernel's own default for cpu.max

Steps = list[list[str | int]]


class GuestJail(Struct, frozen=True, kw_only=True):
    """tree: steps of corral_guest.tree. limits: (file, text) of its control group in the guest."""

    hostname: str
    tree: Steps
    limits: list[list[str]]


def render(jail: Jail, *, exported: Collection[str], kept: Collection[str] = ()) -> GuestJail:
    """A jail's name, tree and limits, for the supervisor.

    exported: places that show a part of the agent's export; every other bind shows the toolbox,
    which nobody can write to. kept: places in memory that are folders of the system's tree instead,
    as that is on a disk. Raises ConfigError for what a guest's jail cannot be, and for what is
    given with each command there (variables, where it starts) or apart from it (profiles).
    """
    if jail != Jail(parts=jail.parts, hostname=jail.hostname, limits=jail.limits):
        raise ConfigError("a guest's jail is made of a name, binds, memory and limits.")
    memory: Steps = []
    binds: Steps = []
    for part in jail.parts:
        match part:
            case Tmpfs():
                path = _plain(part.path)
                size = part.size or 0
                folder = path in kept
                memory.append(
                    ["folder", path, part.mode] if folder else ["tmpfs", path, part.mode, size]
                )
            case HostBind(optional=False, beneath="/"):
                target = part.target or _plain(part.source)
                if part.writable and target not in exported:
                    raise ConfigError(f"{target} cannot be writable: it is not in the export.")
                binds.append(["export" if target in exported else "toolbox", target])
            case _:
                raise ConfigError("a guest's jail shows what is there, whole.")
    binds.sort(key=lambda step: str(step[1]).count("/"))  # parents first
    return GuestJail(hostname=jail.hostname, tree=memory + binds, limits=_limits(jail.limits))


def _plain(source: Source) -> str:
    if not isinstance(source, str):
        raise ConfigError("a path of a guest's jail is written in full.")
    return source


def _limits(wanted: Limits) -> list[list[str]]:
    """[file, text] in a control group (cgroup-v2.rst)."""
    found: list[list[str]] = []
    if wanted.memory:
        found.append(["memory.max", str(wanted.memory)])
    if wanted.cpu:
        found.append(["cpu.max", f"{wanted.cpu * _PERIOD // 100} {_PERIOD}"])
    if wanted.pids:
        found.append(["pids.max", str(wanted.pids)])
    return found
