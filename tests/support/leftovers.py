"""What a sandbox could leave behind on the host, looked for in every place."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from corral.paths import run_root

PROGRAMS = ("qemu-system", "virtiofsd", "vhost-device-vsock", "corral/proc/warden.py")


def processes() -> set[int]:
    """Helper processes of this user, by pid, but for those of another session that still lives."""
    found = set()
    for process in psutil.process_iter(["pid", "uids", "status"]):
        uids = process.info["uids"]
        if uids is None or uids.real != os.getuid() or process.info["status"] == "zombie":
            continue
        if _is_helper(process) and not _belongs_to_others(process):
            found.add(process.info["pid"])
    return found


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]  # gone a moment ago


def _is_helper(process: psutil.Process) -> bool:
    argv = _argv(process)
    # Directly, or through bubblewrap, a loader or Python; not who only speaks of them.
    if not any(name in argv[0] for name in (*PROGRAMS, "bwrap", "ld-linux", "python")):
        return False
    return any(
        word.startswith("/") and program in word for word in argv for program in PROGRAMS
    ) and not any("pytest" in word for word in argv)


def _belongs_to_others(process: psutil.Process) -> bool:
    """Whether another session, a Python program as this one is, still lives as its owner.

    A helper that has lost its owner is a child of init, or of what collects orphans in its place.
    """
    try:
        ancestors = process.parents()
    except psutil.Error:
        return True  # gone a moment ago
    if any(ancestor.pid == os.getpid() for ancestor in ancestors):
        return False
    owner = next((each for each in ancestors if not _is_helper(each)), None)
    return owner is not None and "python" in _argv(owner)[0]


def _shown(pid: int) -> str:
    """A process for a message: its id, its parent, what it is."""
    try:
        process = psutil.Process(pid)
        return f"{pid} (of {process.ppid()}): {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return str(pid)


def folders() -> set[str]:
    """Run folders."""
    return {str(path) for path in run_root().iterdir()}


def shared_memory() -> set[str]:
    """Named RAM files: there must never be one."""
    return {str(path) for path in Path("/dev/shm").iterdir() if "corral" in path.name}


def mounts() -> set[str]:
    """Mounts of this mount namespace that corral could have made."""
    text = Path("/proc/self/mountinfo").read_text()
    return {line.split(" ")[4] for line in text.splitlines() if "corral" in line.split(" - ")[0]}


def everything() -> dict[str, set[str]]:
    """All of it."""
    return {
        "processes": {_shown(pid) for pid in processes()},
        "run folders": folders(),
        "shared memory": shared_memory(),
        "mounts": mounts(),
    }
