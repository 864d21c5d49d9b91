"""What this machine has, measured once and remembered.

Version strings are remembered by the identity of the program's file; what can change only with
the kernel or its settings is remembered for this boot. Failures are measured again every time:
they end a run anyway, and the user has just tried to mend them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import msgspec

from .. import paths
from . import kvm as kvm_probe
from .cgroups import Cgroups, find_cgroups
from .kvm import KvmFinding
from .limits import count_cpus, usable_memory
from .platform import AppArmor, OsRelease, find_apparmor, find_os_release
from .programs import (
    CHECKPOINT_QEMU,
    CHECKPOINT_VIRTIOFSD,
    Program,
    Versions,
    Virtiofsd,
    find_bwrap,
    find_mke2fs,
    find_qemu,
    find_tmux,
    find_virtiofsd,
    parse_version,
)
from .system import System
from .userns import Finding, settings_key, try_namespaces
from .users import User, find_user

KVM_DEVICE = "/dev/kvm"
CACHE_VERSION = 1


class Need(msgspec.Struct, frozen=True):
    """What to measure. fresh: believe nothing that was remembered."""

    kvm: bool = True
    user_namespaces: bool = True
    fresh: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine has. memory: bytes that may be used at all (machine or cgroup).

    python: the real interpreter below any virtual environment. cpus: those this process may run
    on. usr_owner: the uid that /usr belongs to, as seen from here. mke2fs: makes file systems of
    disks; its version does not matter.
    """

    arch: str
    user: User
    python: Path
    qemu: Program | None
    bwrap: Program | None
    virtiofsd: Virtiofsd | None
    vhost_device_vsock: Program | None
    kvm: KvmFinding
    user_namespaces: Finding
    cpus: int
    memory: int
    os_release: OsRelease
    apparmor: AppArmor
    usr_owner: int = 0
    mke2fs: Program | None = None
    tmux: Program | None = None
    cgroups: Cgroups = Cgroups()

    @property
    def own_virtiofsd(self) -> Virtiofsd | None:
        """The host's virtiofsd, if it can serve this user.

        QEMU's own (C) serves only whom /usr belongs to: others cannot open its files the way
        overlayfs wants them (O_NOATIME is the owner's, see open(2)). That is root, and not the
        root of a user namespace, as in a rootless container.
        """
        found = self.virtiofsd
        usable = found is not None and (found.dialect == "rust" or self.user.uid == self.usr_owner)
        return found if usable else None

    @property
    def checkpoint_qemu(self) -> Program | None:
        """The host's QEMU, if it can save a machine with its virtiofs devices."""
        new = self.qemu is not None and parse_version(self.qemu.version) >= CHECKPOINT_QEMU
        return self.qemu if new else None

    @property
    def checkpoint_virtiofsd(self) -> Virtiofsd | None:
        """The host's virtiofsd, if it can pass on what it knows to another."""
        found = self.virtiofsd
        if found is None or found.dialect == "c":
            return None
        return found if parse_version(found.program.version) >= CHECKPOINT_VIRTIOFSD else None

    @property
    def can_fetch(self) -> bool:
        """Whether programs may be had from a newer suite of Debian: only on Debian itself."""
        return self.os_release.id == "debian"


class Remembered(msgspec.Struct, kw_only=True):
    """The file facts.json in the cache folder."""

    version: int = CACHE_VERSION
    boot_id: str = ""
    programs: dict[str, str] = {}
    kvm: dict[str, KvmFinding] = {}
    namespaces: dict[str, Finding] = {}


_EVERYTHING = Need()


def measure(
    *, need: Need = _EVERYTHING, system: System | None = None, cache: Path | None = None
) -> Facts:
    """Look at this machine: a few milliseconds when remembered, else about 0.1 s.

    system: another machine than this one, for tests. cache: the file of remembered findings,
    by default facts.json in the cache folder; one that cannot be written is not an error.
    """
    system = system or System()
    file = cache or paths.cache_dir() / "facts.json"
    boot_id = (system.read("/proc/sys/kernel/random/boot_id") or "").strip()
    old = Remembered(boot_id=boot_id) if need.fresh else recall(file, boot_id)
    versions = Versions(old.programs)
    arch = os.uname().machine
    qemu = find_qemu(system, versions, arch)
    bwrap = find_bwrap(system, versions)
    new = Remembered(boot_id=boot_id, kvm=dict(old.kvm), namespaces=dict(old.namespaces))
    facts = Facts(
        arch=arch,
        user=find_user(system, system.which("git")),
        python=base_python(),
        qemu=qemu,
        bwrap=bwrap,
        virtiofsd=find_virtiofsd(system, versions, qemu),
        vhost_device_vsock=versions.program(system, system.which("vhost-device-vsock")),
        kvm=_kvm(system, arch, new) if need.kvm else KvmFinding("unmeasured", "not measured."),
        user_namespaces=_namespaces(system, bwrap, new, wanted=need.user_namespaces),
        cpus=count_cpus(system),
        memory=usable_memory(system),
        os_release=find_os_release(system),
        apparmor=find_apparmor(system),
        usr_owner=_owner(system.path("/usr")),
        mke2fs=find_mke2fs(system),
        tmux=find_tmux(system),
        cgroups=find_cgroups(system),
    )
    new.programs = versions.used
    if need.fresh or new != old:
        remember(file, new)
    return facts


def base_python() -> Path:
    """The interpreter that a virtual environment was made from, symlinks resolved."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def recall(file: Path, boot_id: str) -> Remembered:
    """What was remembered. Programs survive a reboot; a damaged or older file counts as empty."""
    try:
        old = msgspec.json.decode(file.read_bytes(), type=Remembered)
    except (OSError, msgspec.MsgspecError):
        return Remembered(boot_id=boot_id)
    if old.version != CACHE_VERSION:
        return Remembered(boot_id=boot_id)
    if old.boot_id != boot_id:
        return Remembered(boot_id=boot_id, programs=old.programs)
    return old


def remember(file: Path, found: Remembered) -> None:
    """Keep what was found; a cache that cannot be written only costs time at the next start."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.encode(found))
        temporary.replace(file)
    except OSError:
        with contextlib.suppress(OSError):  # on a read-only file system even when there is none
            temporary.unlink()


def _kvm(system: System, arch: str, memory: Remembered) -> KvmFinding:
    device = str(system.path(KVM_DEVICE))
    opened = kvm_probe.open_device(device)
    if isinstance(opened, KvmFinding):
        return opened
    status = os.fstat(opened)
    os.close(opened)
    key = f"{status.st_rdev}:{status.st_ino}:{status.st_ctime_ns}"
    known = memory.kvm.get(key)
    if known is None:
        known = kvm_probe.examine(device, arch)
        if known.state in ("works", "emulates"):
            memory.kvm = {key: known}
    return known


def _namespaces(
    system: System, bwrap: Program | None, memory: Remembered, *, wanted: bool
) -> Finding:
    if bwrap is None:
        return Finding(
            False,
            "user namespaces are tested with bubblewrap, which is not installed.",
            "Run `corral doctor --fix`.",
        )
    if not wanted:
        return Finding(False, "not measured.")
    key = settings_key(system, bwrap)
    known = memory.namespaces.get(key)
    if known is None:
        known = try_namespaces(system, bwrap)
        if known.ok:
            memory.namespaces = {key: known}
    return known


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return 0  # no /usr, as on NixOS: nothing there to be served
