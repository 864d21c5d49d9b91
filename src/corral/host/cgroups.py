"""Which control groups (cgroup v2) this process may make, and which systemd would make for it.

See the kernel's Documentation/admin-guide/cgroup-v2.rst (delegation, no internal processes) and
systemd's CGROUP_DELEGATION: below a folder that systemd manages only a group that it has delegated
is ours to divide; it marks such a folder with an extended attribute.
"""

from __future__ import annotations

import contextlib
import os
from typing import Literal

import msgspec

from .system import System

ROOT = "/sys/fs/cgroup"
OWN_LEAF = "corral-main"  # where corral goes itself, so that the group above it may be divided
_MARKS = ("user.delegate", "trusted.delegate")  # since systemd 251, before


class Cgroups(msgspec.Struct, frozen=True):
    """Control groups here.

    mounted: v2 with all controllers; hybrid: v2 without them; v1; none. base: the folder of the
    group below which groups may be made, None when there is none. controllers: those that groups
    below it can have. manager: the systemd that makes scopes for this user. offers: the
    controllers that it hands out. systemd_run: its program.
    """

    mounted: Literal["v2", "hybrid", "v1", "none"] = "none"
    base: str | None = None
    controllers: tuple[str, ...] = ()
    manager: Literal["user", "system"] | None = None
    offers: tuple[str, ...] = ()
    systemd_run: str | None = None


def find_cgroups(system: System) -> Cgroups:
    """Look at /sys/fs/cgroup, at the group of this process, and for systemd."""
    available = _words(system, f"{ROOT}/cgroup.controllers")
    if available is None:
        hybrid = system.read(f"{ROOT}/unified/cgroup.controllers") is not None
        old = any(system.path(f"{ROOT}/{name}").is_dir() for name in ("memory", "cpu", "pids"))
        return Cgroups("hybrid" if hybrid else "v1" if old else "none")
    base, controllers = _delegated(system)
    manager, offers = _manager(system, available)
    return Cgroups(
        mounted="v2",
        base=base,
        controllers=controllers,
        manager=manager,
        offers=offers,
        systemd_run=system.which("systemd-run") if manager else None,
    )


def own_group(system: System) -> str | None:
    """The folder of the group that corral was started in."""
    for line in (system.read("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            path = line.removeprefix("0::").removesuffix(f"/{OWN_LEAF}").rstrip("/")
            return None if "/.." in path else ROOT + path
    return None


def _delegated(system: System) -> tuple[str | None, tuple[str, ...]]:
    """Our own group, if it is ours to divide, and what groups below it can have."""
    folder = own_group(system)
    if folder is None or not _is_ours(system, folder):
        return None, ()
    enabled = _words(system, f"{folder}/cgroup.subtree_control") or ()
    alone = all(
        line == str(os.getpid())
        for line in (system.read(f"{folder}/cgroup.procs") or "").splitlines()
    )
    # While others are in it, no further controller can be enabled ("no internal processes").
    return folder, ((_words(system, f"{folder}/cgroup.controllers") or ()) if alone else enabled)


def _is_ours(system: System, folder: str) -> bool:
    names = ("", "/cgroup.procs", "/cgroup.subtree_control")
    if not all(os.access(system.path(folder + name), os.W_OK) for name in names):
        return False
    if not system.path("/run/systemd/system").is_dir():
        return True  # nobody else manages it
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(system.path(folder), mark) == b"1":
                return True
    return False


def _manager(
    system: System, available: tuple[str, ...]
) -> tuple[Literal["user", "system"] | None, tuple[str, ...]]:
    if not system.path("/run/systemd/system").is_dir():
        return None, ()
    if system.uid == 0:
        return "system", available
    runtime = system.environ.get("XDG_RUNTIME_DIR", "")
    if not runtime or not system.path(f"{runtime}/systemd/private").exists():
        return None, ()
    slices = f"{ROOT}/user.slice/user-{system.uid}.slice/user@{system.uid}.service"
    return "user", _words(system, f"{slices}/cgroup.controllers") or ()


def _words(system: System, path: str) -> tuple[str, ...] | None:
    text = system.read(path)
    return None if text is None else tuple(text.split())


def disk_of(system: System, path: str) -> str | None:
    """The disk under a file system, as "259:0"; None for one without (btrfs, overlay, NFS, tmpfs).

    A partition's limits are its disk's.
    """
    try:
        number = system.path(path).stat().st_dev
    except OSError:
        return None
    entry = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if system.read(f"{entry}/partition") is not None:
        entry += "/.."
    return (system.read(f"{entry}/dev") or "").strip() or None
