"""What a sandbox uses of the host: time of processors, memory, disk (proc(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512  # of st_blocks, whatever the file system's own are (stat(2))
# Of /proc/PID/stat, after the name in parentheses: state, ppid, ..., utime, stime, cutime, cstime.
_PPID, _TIMES = 1, slice(11, 15)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox uses.

    processes: that live. cpu: seconds, of those that have ended, too. memory: bytes, the guest's
    RAM and the proportional set size of all processes beside it. ram: bytes of that which are the
    guest's RAM. disk: bytes that the disk's file takes, 0 without one. received, sent: bytes over
    the network, which there is none of yet.
    """

    processes: int
    cpu: float
    memory: int
    ram: int
    disk: int
    received: int = 0
    sent: int = 0


def measure(roots: Iterable[int], *, ram: int = -1, disk: int = -1, proc: str = "/proc") -> Usage:
    """Of the processes `roots` and all their descendants. ram, disk: descriptors, or -1.

    RAM counts as far as the host has given it: no process need have it mapped. It takes some
    milliseconds; call it in a thread.
    """
    family, ticks = _family(roots, Path(proc))
    given = _allocated(ram)
    return Usage(
        processes=len(family),
        cpu=round(ticks / _TICKS, 2),
        memory=given + sum(_memory(Path(proc, str(pid))) for pid in family),
        ram=given,
        disk=_allocated(disk),
    )


def _family(roots: Iterable[int], proc: Path) -> tuple[set[int], int]:
    """Those that live, and the clock ticks that they and their ended children have had."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                number = int(entry.name)
                children.setdefault(int(fields[_PPID]), []).append(number)
                ticks[number] = sum(map(int, fields[_TIMES]))
    family: set[int] = set()
    found = [pid for pid in roots if pid in ticks]
    while found:
        pid = found.pop()
        if pid not in family:
            family.add(pid)
            found += children.get(pid, [])
    return family, sum(ticks[pid] for pid in family)


def _memory(folder: Path) -> int:
    """A process's proportional set size without shared memory, which the guest's RAM is.

    Its resident set less what is shared, where the kernel does not tell that.
    """
    with contextlib.suppress(OSError):
        found = dict.fromkeys(("Pss_Anon", "Pss_File"), 0)
        for line in (folder / "smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
        return sum(found.values())
    with contextlib.suppress(OSError):
        _size, resident, shared = (folder / "statm").read_text().split()[:3]
        return (int(resident) - int(shared)) * _PAGE
    return 0


def _allocated(fd: int) -> int:
    return os.fstat(fd).st_blocks * _BLOCK if fd >= 0 else 0
