"""Who holds a socket: for the one process of ours that can lose its parent unseen."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def end_holders(inode: int) -> list[int]:
    """Kill every other process that has a descriptor of the socket `inode`; returns their pidfds.

    bubblewrap's child waits for its parent without end (an eventfd, in bubblewrap.c). When
    something kills the parent in just that moment, some 75 µs, nothing else would end the child.
    """
    ended = []
    for pid in _others():
        with contextlib.ExitStack() as unless_kept, contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)  # OSError: it is gone; below: it is another user's
            unless_kept.callback(os.close, pidfd)
            if _holds(pid, inode):  # asked once we have it fast
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ended.append(pidfd)
                unless_kept.pop_all()
    return ended


def _others() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            yield int(entry.name)


def _holds(pid: int, inode: int) -> bool:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if str(entry.readlink()) == f"socket:[{inode}]":
                return True
    return False
