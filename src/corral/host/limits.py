"""How many processors and how much memory this process may use."""

from __future__ import annotations

import os

from .system import System

KIB = 1024


def count_cpus(system: System) -> int:
    """The processors this process may run on, and no more than its cgroup's quota allows."""
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup_cpus(system.read("/sys/fs/cgroup/cpu.max") or "")
    return max(1, min(affinity, quota)) if quota else affinity


def capacity() -> tuple[int, int]:
    """CPUs and bytes of memory that a sandbox on this machine may have at all."""
    system = System()
    return count_cpus(system), usable_memory(system)


def cgroup_cpus(cpu_max: str) -> int | None:
    """Whole processors, rounded up, in a cgroup's cpu.max ("quota period"); None for no limit."""
    words = cpu_max.split()
    if len(words) != 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        return None
    quota, period = int(words[0]), int(words[1])
    return -(-quota // period) if quota and period else None


def usable_memory(system: System) -> int:
    """Bytes of memory that the machine has, or its cgroup's limit where that is less."""
    total = meminfo(system.read("/proc/meminfo") or "", "MemTotal")
    limits = (
        system.number("/sys/fs/cgroup/memory.max"),
        system.number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # cgroup v1
    )
    return min([total, *(limit for limit in limits if limit)])


def available_memory(system: System) -> int:
    """Bytes of memory that can be used now without swapping."""
    return meminfo(system.read("/proc/meminfo") or "", "MemAvailable")


def meminfo(text: str, name: str) -> int:
    """Bytes of one line of /proc/meminfo, 0 when it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if key == name and words and words[0].isdecimal():
            return int(words[0]) * KIB
    return 0
