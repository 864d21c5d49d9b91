"""A command that is started sees what the host has changed before, in the folders it shares.

A file server lets the kernel believe names and attributes for a while (LIFETIME). A remount drops
those that are not in use (reconfigure_super in fs/super.c); but like every lookup it waits for the
file server, which its agent can keep busy for as long as it likes. So a process does it that is
nobody else's, in the agent's control group, with which it ends; and who has waited for it until
all that was believed has run out needs it no more.
"""

from __future__ import annotations

import os
import socket

from . import apart, boot, linux
from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

# Seconds; both virtiofsd say 1 where files are cached for a while (cache=auto).
LIFETIME = 1.1
_FLAGS = linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV


class Fresh:
    """Of one agent. folder: where its file systems are mounted. cgroup: its control group.

    Raises OSError when there is no room for the process.
    """

    def __init__(self, loop: Loop, folder: str, cgroup: str) -> None:
        self._loop = loop
        # What is to be done when it was; emptied when it is done. In the order of asking.
        self._asked: list[list[Callable[[], object]]] = []
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            apart.begin(lambda: serve(folder, cgroup), theirs.fileno())
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        loop.watch(self._socket.fileno(), READ, lambda _events: self._heard())

    def then(self, action: Callable[[], object]) -> None:
        """Call `action` when nothing is believed any more that was before now, or when closed."""
        once = [action]
        try:
            self._socket.send(b"x")
            self._asked.append(once)
        except OSError:  # it has more to do than it can, or has ended
            pass
        self._loop.later(LIFETIME, lambda: _call(once))

    def _heard(self) -> None:
        try:
            done = len(self._socket.recv(4096))
        except BlockingIOError:
            return
        except OSError:
            done = 0
        if not done:
            self._loop.forget(self._socket.fileno())  # time does it now
        ready, self._asked = self._asked[:done], self._asked[done:]
        for once in ready:
            _call(once)

    def close(self) -> None:
        """The agent's jail has ended, and the process with it."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        asked, self._asked = self._asked, []
        for once in asked:
            _call(once)


def _call(once: list[Callable[[], object]]) -> None:
    if once:
        once.pop()()


def serve(folder: str, cgroup: str) -> None:
    """The process: for each byte of KEPT_FD one is sent back, once the caches are empty."""
    boot.write(f"{cgroup}/cgroup.procs", "0")
    boot.write("/proc/self/oom_score_adj", "0")
    linux.set_name("corral-fresh")
    mounts: list[str] = []
    with socket.socket(fileno=apart.KEPT_FD) as control:
        while asked := control.recv(4096):
            mounts = _drop(mounts or boot.mounts_below(folder), folder)
            control.sendall(asked)


def _drop(mounts: list[str], folder: str) -> list[str]:
    """Empty the caches; returns where there is something mounted now."""
    gone = False
    for path in mounts:
        try:
            at = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                linux.mount("none", f"/proc/self/fd/{at}", None, _FLAGS)
            finally:
                os.close(at)
        except OSError:  # the host has replaced it: no file system of its own is there now
            gone = True
    return boot.mounts_below(folder) if gone else mounts
