"""The helper processes of a sandbox, as /proc shows them."""

from __future__ import annotations

import contextlib
from pathlib import Path


class Helper:
    """One process. name: what it is: QEMU, virtiofsd, or another's program."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.path = Path(f"/proc/{pid}")

    @property
    def serves_network(self) -> bool:
        """Whether it dials out for the sandbox: a gateway, an interceptor."""
        return "corral." in self.name

    def read(self, name: str) -> str:
        """A file of its folder in /proc."""
        return (self.path / name).read_text(errors="replace")

    def namespace(self, kind: str) -> Path:
        """What names a namespace of it."""
        return (self.path / "ns" / kind).readlink()

    def status(self) -> dict[str, str]:
        """/proc/PID/status: values by name."""
        rows = (line.partition(":") for line in self.read("status").splitlines())
        return {name: value.strip() for name, _, value in rows}

    def environment(self) -> dict[str, str]:
        """Its variables."""
        rows = (item.partition("=") for item in self.read("environ").split("\0") if item)
        return {name: value for name, _, value in rows}

    def descriptors(self) -> list[str]:
        """What its descriptors lead to."""
        found = []
        for entry in (self.path / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(entry.readlink()))
        return found


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile
                stat = (entry / "stat").read_text()
                parents.setdefault(int(stat.rpartition(") ")[2].split()[1]), []).append(
                    int(entry.name)
                )
    found = [pid]
    for each in found:  # which grows
        found += parents.get(each, [])
    return found


def start_time(pid: int) -> str:
    """When a process began, in clock ticks since the boot; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return stat[19] if stat[0] not in "ZX" else ""


def helpers(pid: int) -> list[Helper]:
    """The programs below the warden, without the bubblewrap around each."""
    found = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{each}/cmdline").read_text(errors="replace").split("\0")
            name = _named(words)
            if name:
                found.append(Helper(each, name))
    return found


def _named(words: list[str]) -> str:
    if Path(words[0]).name == "bwrap":
        return ""
    for word in words[:6]:
        program = Path(word).name
        if program.startswith("qemu-system"):
            return "QEMU"
        if program.startswith(("virtiofsd", "vhost-device-vsock")):
            return program
        if word.startswith(("corral.gateway", "corral.intercept")):
            return word
    return ""
