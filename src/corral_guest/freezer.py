"""Stopping every process of a control group, and letting it go on (cgroup v2's freezer).

See Documentation/admin-guide/cgroup-v2.rst: writing 1 to cgroup.freeze asks for it; cgroup.events
says when it is so, and poll(2) says when that changes.
"""

from __future__ import annotations

import errno
import os
import select
import time

from . import boot

# Seconds for all of them: a process that waits for the host's disk stops when that has answered.
TIMEOUT = 20.0


def freeze(groups: list[str]) -> None:
    """Stop all processes in these groups. Raises OSError, with all going on, when one does not."""
    try:
        for group in groups:
            boot.write(f"{group}/cgroup.freeze", "1")
        limit = time.monotonic() + TIMEOUT
        for group in groups:
            _wait_until_frozen(group, limit)
    except OSError:
        thaw(groups)
        raise


def thaw(groups: list[str]) -> None:
    """Let them go on."""
    for group in groups:
        if os.path.isdir(group):
            boot.write(f"{group}/cgroup.freeze", "0")


def _wait_until_frozen(group: str, limit: float) -> None:
    """Of a group with processes and groups of its own, "frozen 1" tells of its own processes only:
    every group below is asked (Linux 6.1, cgroup_update_frozen in kernel/cgroup/freezer.c).
    """
    for each, _, _ in os.walk(group):
        try:
            events = os.open(f"{each}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # its command has ended
            continue
        try:
            _wait_for(events, each, limit)
        finally:
            os.close(events)


def _wait_for(events: int, group: str, limit: float) -> None:
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    while True:
        try:
            if b"frozen 1" in os.pread(events, 4096, 0):
                return
        except OSError as error:
            if error.errno == errno.ENODEV:  # the group is gone
                return
            raise
        if not poll.poll(max(0, limit - time.monotonic()) * 1000):
            raise OSError(errno.ETIMEDOUT, "a process does not stand still", group)
