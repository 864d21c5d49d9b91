"""What a sandbox could leave behind on the host, looked for in every place."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from pathlib import Path

import psutil

from corral.paths import run_root

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own.

    So whatever outlives its owner is found among our descendants, whatever it looks like, and what
    others run on this machine is not.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def family() -> list[psutil.Process]:
    """Our descendants that live."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone a moment ago
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def running(program: str) -> list[psutil.Process]:
    """Our descendants that run a program, without the bubblewrap around it."""
    found = []
    for process in family():
        with contextlib.suppress(psutil.Error):  # gone a moment ago
            words = process.cmdline()
            if (
                words
                and Path(words[0]).name != "bwrap"
                and any(program in word for word in words[:6])
            ):
                found.append(process)  # perhaps run by a loader of its own
    return found


def wait_until_gone(seconds: float) -> list[str]:
    """Wait until no descendant lives; returns the command lines of those that still do."""
    limit = time.monotonic() + seconds
    while left := family():
        if time.monotonic() > limit:
            return [_described(process) for process in left]
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(left[0].pid)
            select.select([pidfd], [], [], max(0.0, limit - time.monotonic()))
            os.close(pidfd)
    return []


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process, and what each is."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as this folder itself is
            found[int(entry.name)] = str(entry.readlink())
    return found


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()}: {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return f"{process.pid}: gone a moment ago"


def folders() -> set[str]:
    """Run folders."""
    return {str(path) for path in run_root().iterdir()}


def shared_memory() -> set[str]:
    """Named RAM files: there must never be one."""
    return {str(path) for path in Path("/dev/shm").iterdir() if "corral" in path.name}


def mounts() -> set[str]:
    """Mounts of this mount namespace that corral could have made.

    Not those in the folders of other test processes, which run beside this one.
    """
    ours = Path(os.environ["CORRAL_STATE_DIR"]).parents[1]
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = {line.split(" ")[4] for line in lines if "corral" in line.split(" - ")[0]}
    return {path for path in found if "/pytest-of-" not in path or Path(path).is_relative_to(ours)}


def everything() -> dict[str, set[str]]:
    """All of it."""
    return {
        "processes": {_described(process) for process in family()},
        "run folders": folders(),
        "shared memory": shared_memory(),
        "mounts": mounts(),
    }
