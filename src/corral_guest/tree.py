"""The file tree of a jail: what the supervisor mounts for the agent, put in place inside.

A jail is made with a root of its own that holds /proc, /dev and, as slaves of the supervisor's
mounts, FOLDERS. What the supervisor mounts there later appears in the jail, its flags locked for
good (mount_namespaces(7)). The jail's first process of ours, which has root's rights inside the
jail's user namespace and nothing outside it, takes copies of those mounts that the agent shall see,
changes the root, lets go of the old one, and puts them in place.

Steps: ["tmpfs", path, mode, size], of at most so many bytes, 0 for the kernel's default ·
["folder", path, mode], made when it is not there · ["export", path] and ["toolbox", path], the same
path below the agent's export and the toolbox. Parents come before children.
"""

from __future__ import annotations

import os

from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT, TOOLBOX, NEW = "/agent", "/toolbox", "/new"  # in a jail that has no tree yet
FOLDERS = {"root": f"{AGENT}/root", "export": f"{AGENT}/export", "toolbox": TOOLBOX}
BYTES_PER_FILE, MIN_FILES = 4096, 1024  # in a tmpfs of a given size
TERMINALS, _PTS = f"{AGENT}/terminals", "/dev/pts"
_KEPT = ("/proc", "/dev")  # made with the jail: they belong to its namespaces
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV


def memory(mode: int, size: int = 0) -> str:
    """The options of a tmpfs (tmpfs(5)) that holds at most `size` bytes; 0: half of the memory.

    A file takes a page at least, so no more of them are of use; but some hundred bytes of the
    kernel's are what an empty one or a link takes, and so many of these are bounded, too.
    """
    if not size:
        return f"mode={mode:o}"
    return f"mode={mode:o},size={size},nr_inodes={max(size // BYTES_PER_FILE, MIN_FILES)}"


def terminals(most: int) -> str:
    """The options of a devpts that anybody may take a pseudoterminal of (devpts in fs/devpts)."""
    return f"mode=620,ptmxmode=666,max={most}"


def furnish(steps: list[list[Any]]) -> None:
    """Make the agent's tree the root of this process's mount namespace. Raises OSError.

    Called in the jail, as the agent, with the capabilities of its user namespace. A disk brings
    the agent's tree along as an earlier life has left it, links in place of any folder included:
    nothing is looked up there before the old root is gone, so they lead nowhere else.
    """
    kept = [(path, linux.open_tree(path)) for path in _KEPT]
    terminals = linux.open_tree(TERMINALS)
    sources = [linux.open_tree(FOLDERS[kind] + path) for kind, path, *_ in steps if kind in FOLDERS]
    linux.mount(FOLDERS["root"], NEW, None, linux.MS_BIND | linux.MS_REC)
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(NEW)
    linux.pivot_root(".", ".")  # now the old root lies on the new one
    os.fchdir(old)
    linux.unmount(".", linux.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    for path, tree in kept:
        os.makedirs(path, exist_ok=True)
        linux.move_mount(tree, path)
    # In place of those that bubblewrap has mounted, which are not the agent's share of all.
    linux.unmount(_PTS, linux.MNT_DETACH)
    linux.move_mount(terminals, _PTS)
    remaining = iter(sources)
    for kind, path, *rest in steps:
        if not os.path.isdir(path):
            os.makedirs(path)
            if kind == "folder":
                os.chmod(path, rest[0])
        if kind == "tmpfs":
            linux.mount("tmpfs", path, "tmpfs", _FLAGS, memory(*rest))
        elif kind != "folder":
            linux.move_mount(next(remaining), path)
    for fd in (*(tree for _path, tree in kept), terminals, *sources):
        os.close(fd)
