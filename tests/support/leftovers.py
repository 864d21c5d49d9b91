"""What a sandbox could leave behind on the host, looked for in every place."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from corral.paths import run_root

PROGRAMS = ("qemu-system", "virtiofsd", "vhost-device-vsock", "corral/proc/warden.py")


def processes() -> set[int]:
    """Helper processes of this user, by pid."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "uids", "status"]):
        uids = process.info["uids"]
        if uids is None or uids.real != os.getuid() or process.info["status"] == "zombie":
            continue
        command = " ".join(process.info["cmdline"] or ())
        if any(program in command for program in PROGRAMS) and "pytest" not in command:
            found.add(process.info["pid"])
    return found


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
        "processes": {str(pid) for pid in processes()},
        "run folders": folders(),
        "shared memory": shared_memory(),
        "mounts": mounts(),
    }
