"""What the processes below a process use: time of processors and memory (proc(5))."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Of /proc/PID/stat, after the name in parentheses: state, ppid, ..., utime, stime.
_PPID, _UTIME, _STIME = 1, 11, 12


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Summed over the processes that live. cpu: seconds. memory: bytes, proportional set size."""

    processes: int
    cpu: float
    memory: int


def below(pid: int) -> Usage:
    """Of all descendants of a process, and of itself."""
    parents: dict[int, int] = {}
    times: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                number = int(entry.name)
                parents[number] = int(fields[_PPID])
                times[number] = int(fields[_UTIME]) + int(fields[_STIME])
    family = {pid}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    ticks = sum(times.get(each, 0) for each in family)
    return Usage(
        processes=len(family & times.keys()),
        cpu=round(ticks / _TICKS, 2),
        memory=sum(_memory(each) for each in family),
    )


def _memory(pid: int) -> int:
    """Its proportional set size; its resident set where the kernel does not tell that."""
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError):
        return int((folder / "statm").read_text().split()[1]) * _PAGE
    return 0
