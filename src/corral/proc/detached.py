"""Start a process that outlives us: in a session of its own, with nothing of ours but its input."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ProcessError
from .own import python

CONTROL_FD = 3
_HIGH = 100  # above every number that the process gets


def start_detached(
    module: str, arguments: list[str], environment: Mapping[str, str], *, log: Path, control: int
) -> int:
    """Run a module of ours by this Python; returns its process id.

    Its standard input is empty, its output goes to `log`, made anew. It has `control` as
    CONTROL_FD and closes every other descriptor itself (`close_others`). Raises ProcessError.
    """
    argv = python(module, *arguments)
    with contextlib.ExitStack() as stack:
        # Out of the way first, so that no descriptor is overwritten before it is copied.
        high = fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        stack.callback(os.close, high)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        actions: list[tuple[object, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, high, CONTROL_FD),
        ]
        try:
            return os.posix_spawn(
                argv[0],
                argv,
                dict(environment),
                file_actions=actions,
                setsid=True,
                setsigmask=[],
            )
        except OSError as error:
            raise ProcessError(f"{module} was not started: {error.strerror}.") from error


def close_others() -> None:
    """In the process that was started: close whatever else its starter had open to be inherited."""
    os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    os.set_inheritable(CONTROL_FD, False)
