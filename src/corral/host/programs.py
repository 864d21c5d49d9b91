"""The programs that corral uses: where they are, which version, and what they need to be visible.

Versions are asked once and kept in the cache, keyed by the file's identity.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from .system import System

QEMU_BY_ARCH = {"x86_64": "qemu-system-x86_64", "aarch64": "qemu-system-aarch64"}
NO_SETGROUPS = "setgroups() failed"  # QEMU's virtiofsd, before it reads its options
# What saves the state of virtiofs devices (vhost-user's device state): QEMU does since 8.2 (its
# hw/virtio/vhost-user-fs.c), virtiofsd since 1.11 (its doc/migration.md). These are the oldest that
# corral is tested with.
CHECKPOINT_QEMU = (10, 0)
CHECKPOINT_VIRTIOFSD = (1, 13)
PRIVATE_BWRAP = "/usr/local/libexec/corral/bwrap"  # what `doctor --fix` makes, see apparmor.py


class Program(msgspec.Struct, frozen=True):
    """A program that can be run.

    argv: what goes before its arguments (more than the binary where it runs through a loader of
    its own). version: as it says itself, e.g. "7.2.22". binds: folders that must be visible,
    read-only, at the same path where it runs.
    """

    argv: tuple[str, ...]
    version: str
    binds: tuple[str, ...]


class Virtiofsd(msgspec.Struct, frozen=True):
    """A virtiofs daemon. dialect: `c` came with QEMU until 7.2, `rust` is the one since."""

    program: Program
    dialect: Literal["c", "rust"]


def parse_version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "7.2.22 (Debian ...)" is (7, 2, 22); () if there are none.

    Only the first three count.
    """
    match = re.match(r"\s*v?(\d+(?:\.\d+){0,2})", text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def version_in(output: str) -> str:
    """The version in what a program prints for --version, or "" when there is none."""
    match = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", output.partition("\n")[0])
    return match[0] if match else ""


def virtiofsd_dialect(output: str) -> Literal["c", "rust"]:
    """Which virtiofsd printed this: QEMU's names the FUSE interface, the Rust one only itself."""
    marks = ("FUSE kernel interface", "QEMU", NO_SETGROUPS)
    return "c" if any(mark in output for mark in marks) else "rust"


def binds_of(binary: str) -> tuple[str, ...]:
    """The folders that a program at this real path needs to be visible to run."""
    for prefix in ("/nix/store", "/gnu/store"):
        if binary.startswith(prefix + "/"):
            return (prefix,)
    if binary.startswith("/usr/"):
        return ("/usr",)
    folder, _, _ = binary.rpartition("/")
    if folder.endswith(("/bin", "/sbin", "/libexec")):
        folder = folder.rpartition("/")[0]
    return ("/usr", folder or "/usr")


def identity(system: System, binary: str) -> str:
    """A key that changes when the program's file does."""
    try:
        status = system.path(binary).stat()
    except OSError:
        return f"{binary}:gone"
    return f"{binary}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


class Versions:
    """What programs print for --version, remembered by the identity of their files."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known
        self.used: dict[str, str] = {}

    def output(self, system: System, binary: str) -> str:
        """What `binary --version` prints, or "" when it fails.

        QEMU's virtiofsd fails at it for an ordinary user; then this is its message.
        """
        key = identity(system, binary)
        text = self.known.get(key)
        if text is None:
            answer = system.answer([binary, "--version"])
            said = answer.stdout or answer.stderr
            text = said[:400] if answer.status == 0 or NO_SETGROUPS in said else ""
        if text:
            self.used[key] = text
        return text

    def program(self, system: System, binary: str | None) -> Program | None:
        """The program at a path; None when there is none, or when it does not even run."""
        if binary is None:
            return None
        version = version_in(self.output(system, binary))
        return Program((binary,), version, binds_of(binary)) if version else None


def find_qemu(system: System, versions: Versions, arch: str) -> Program | None:
    """QEMU's system emulator for this architecture."""
    name = QEMU_BY_ARCH.get(arch, f"qemu-system-{arch}")
    binary = system.which(name, "/usr/libexec/qemu-kvm")  # the latter is RHEL's only one
    return versions.program(system, binary)


def find_bwrap(system: System, versions: Versions) -> Program | None:
    """bubblewrap: the copy that `doctor --fix` made where AppArmor wants one, else the system's."""
    private = PRIVATE_BWRAP if system.path(PRIVATE_BWRAP).is_file() else None
    found = versions.program(system, private) if private else None
    return found or versions.program(system, system.which("bwrap"))


def find_mke2fs(system: System) -> Program | None:
    """e2fsprogs' maker of ext4; it prints its version like no other, and any will do."""
    binary = system.which("mke2fs")
    return Program((binary,), "", binds_of(binary)) if binary else None


def find_tmux(system: System) -> Program | None:
    """tmux, which runs on the host as it is; it prints its version like no other."""
    binary = system.which("tmux")
    return Program((binary,), "", binds_of(binary)) if binary else None


def find_virtiofsd(system: System, versions: Versions, qemu: Program | None) -> Virtiofsd | None:
    """A virtiofs daemon, the Rust one where both are there.

    qemu: its version is that of QEMU's virtiofsd when that does not tell its own.
    """
    known = (
        "/usr/libexec/virtiofsd",
        "/usr/lib/virtiofsd",
        "/usr/lib/qemu/virtiofsd",
        "/usr/lib/kvm/virtiofsd",
    )
    first: Virtiofsd | None = None
    for binary in dict.fromkeys((system.which("virtiofsd"), *map(system.real, known))):
        output = versions.output(system, binary) if binary else ""
        if binary is None or not output:
            continue
        version = version_in(output) or (qemu.version if qemu else "")
        found = Virtiofsd(Program((binary,), version, binds_of(binary)), virtiofsd_dialect(output))
        if found.dialect == "rust":
            return found
        first = first or found
    return first
