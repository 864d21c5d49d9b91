"""The file tree of a jail: what the supervisor mounts for the agent, put in place inside.

A jail is made with a root of its own that holds /proc, /dev and, as slaves of the supervisor's
mounts, FOLDERS. What the supervisor mounts there later appears in the jail, its flags locked for
good (mount_namespaces(7)). The jail's first process of ours, which has root's rights inside the
jail's user namespace and nothing outside it, binds from there what the agent shall see, makes that
its root and lets go of the old one.

Steps: ["tmpfs", path, mode] · ["folder", path, mode], made when it is not there · ["export", path]
and ["toolbox", path], the same path below the agent's export and the toolbox. Parents come before
children.
"""

from __future__ import annotations

import os

from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT, TOOLBOX, NEW = "/agent", "/toolbox", "/new"  # in a jail that has no tree yet
FOLDERS = {"root": f"{AGENT}/root", "export": f"{AGENT}/export", "toolbox": TOOLBOX}
_KEPT = ("/proc", "/dev")  # made with the jail: they belong to its namespaces
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV
_BIND = linux.MS_BIND | linux.MS_REC


def furnish(steps: list[list[Any]]) -> None:
    """Make the agent's tree the root of this process's mount namespace. Raises OSError.

    Called in the jail, as the agent, with the capabilities of its user namespace.
    """
    sources = [_open(FOLDERS[kind] + path) for kind, path, *_ in steps if kind in FOLDERS]
    linux.mount(FOLDERS["root"], NEW, None, _BIND)
    for path in _KEPT:
        os.makedirs(NEW + path, exist_ok=True)
        linux.mount(path, NEW + path, None, linux.MS_MOVE)
    old = _open("/")
    os.chdir(NEW)
    linux.pivot_root(".", ".")  # now the old root lies on the new one, where no path leads to it
    remaining = iter(sources)
    for kind, path, *rest in steps:
        if not os.path.isdir(path):
            os.makedirs(path)
            if kind == "folder":
                os.chmod(path, rest[0])
        if kind == "folder":
            continue
        if kind == "tmpfs":
            linux.mount("tmpfs", path, "tmpfs", _FLAGS, f"mode={rest[0]:o}")
        else:
            linux.mount(f"/proc/self/fd/{next(remaining)}", path, None, _BIND)
    os.fchdir(old)
    linux.unmount(".", linux.MNT_DETACH)
    os.chdir("/")
    for fd in (old, *sources):
        os.close(fd)


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
