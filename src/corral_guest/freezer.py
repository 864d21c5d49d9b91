"""Stopping every process of a control group, and letting it go on (cgroup v2's freezer).

See Documentation/admin-guide/cgroup-v2.rst: writing 1 to cgroup.freeze asks for it; cgroup.events
says when it is so, and poll(2) says when that changes.
"""

from __future__ import annotations

import errno
import os
import select

from . import boot

TIMEOUT = 20.0  # seconds; a process that waits for the host's disk stops when that has answered


def freeze(groups: list[str]) -> None:
    """Stop all processes in these groups. Raises OSError, with all going on, when one does not."""
    try:
        for group in groups:
            boot.write(f"{group}/cgroup.freeze", "1")
        for group in groups:
            _wait_until_frozen(group)
    except OSError:
        thaw(groups)
        raise


def thaw(groups: list[str]) -> None:
    """Let them go on."""
    for group in groups:
        if os.path.isdir(group):
            boot.write(f"{group}/cgroup.freeze", "0")


def _wait_until_frozen(group: str) -> None:
    events = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while b"frozen 1" not in os.pread(events, 4096, 0):
            if not poll.poll(TIMEOUT * 1000):
                raise OSError(errno.ETIMEDOUT, "a process does not stand still", group)
    finally:
        os.close(events)
