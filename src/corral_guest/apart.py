"""Work that may wait for what an agent holds up, in a process of its own: PID 1 waits for nobody.

An agent's file server does what it is asked in turn, and its disk is as slow as its limit says: who
asks for something there waits behind all that the agent has asked for.
"""

from __future__ import annotations

import os
import signal

from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

KEPT_FD = 3


def begin(work: Callable[[], object], keep: int = -1) -> int:
    """Do `work` in a child; returns its pid. keep: a descriptor that it has as KEPT_FD, or -1.

    It has none of the others: what hangs must not keep a pipe or a connection open. Raises OSError.
    """
    most = os.sysconf("SC_OPEN_MAX")
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        if keep >= 0:
            os.dup2(keep, KEPT_FD, inheritable=False)
        os.closerange(KEPT_FD + (keep >= 0), most)
        work()
    finally:
        os._exit(0)


def run(loop: Loop, work: Callable[[], object], then: Callable[[], object]) -> None:
    """Do `work` in a child; `then` is called here when that has ended, however it did."""
    try:
        pid = begin(work)
        ended = os.pidfd_open(pid)
    except OSError:  # no room for a process: better slow than never
        work()
        then()
        return

    def gone(_events: int) -> None:
        loop.forget(ended)
        os.close(ended)
        then()  # the supervisor collects it with the others

    loop.watch(ended, READ, gone)
