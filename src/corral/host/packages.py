"""Which package of which distribution gives a program, and the command that installs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import msgspec

from .platform import OsRelease
from .programs import parse_version


class Wanted(msgspec.Struct, frozen=True):
    """A program that corral may need. label: its usual name. why: what it is for."""

    label: str
    why: str


PROGRAMS = {
    "qemu": Wanted("QEMU", "runs the virtual machine"),
    "bwrap": Wanted("bubblewrap", "confines every process that corral starts on this machine"),
    "virtiofsd": Wanted("virtiofsd", "shares folders with the virtual machine"),
    "mke2fs": Wanted("mke2fs (e2fsprogs)", "makes the file system of a sandbox's disk"),
    "tmux": Wanted("tmux", "shows agents side by side"),
}

# Distribution (os-release ID or ID_LIKE) -> architecture-dependent names are in _by_arch below.
_PACKAGES = {
    "debian": {"qemu": "qemu-system-{arch}", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "fedora": {"qemu": "qemu-system-{arch}-core", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "rhel": {"qemu": "qemu-kvm-core", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "arch": {"qemu": "qemu-system-{arch}", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "suse": {"qemu": "qemu-{arch}", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "alpine": {"qemu": "qemu-system-{arch}", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
    "nixos": {"qemu": "qemu", "bwrap": "bubblewrap", "virtiofsd": "virtiofsd"},
}
_ARCH_NAMES = {
    "debian": {"x86_64": "x86", "aarch64": "arm"},
    "fedora": {"x86_64": "x86", "aarch64": "aarch64"},
    "arch": {"x86_64": "x86", "aarch64": "aarch64"},
    "suse": {"x86_64": "x86", "aarch64": "arm"},
}
_INSTALL = {
    "debian": ("apt-get", "install", "-y", "--no-install-recommends"),
    "fedora": ("dnf", "install", "-y"),
    "rhel": ("dnf", "install", "-y"),
    "arch": ("pacman", "-S", "--needed"),
    "suse": ("zypper", "install"),
    "alpine": ("apk", "add"),
}
# Until these releases virtiofsd is QEMU's, in a package that qemu-system-* depends on.
_FIRST_WITH_VIRTIOFSD = {"debian": (13,), "ubuntu": (24, 4)}


def family_of(release: OsRelease) -> str | None:
    """The distribution whose packages this one uses, among those that are known."""
    for identity in release.family:
        name = "suse" if identity.startswith(("suse", "opensuse", "sles")) else identity
        if name in _PACKAGES:
            return name
    return None


def packages_for(programs: Iterable[str], release: OsRelease, arch: str) -> tuple[str, ...]:
    """The packages that give these programs, sorted; () when the distribution is not known."""
    family = family_of(release)
    if family is None:
        return ()
    names = {_package(program, family, release, arch) for program in programs}
    return tuple(sorted(names))


def _package(program: str, family: str, release: OsRelease, arch: str) -> str:
    if program == "mke2fs":
        return "e2fsprogs"  # everywhere
    if program == "tmux":
        return "tmux"  # everywhere
    first = _FIRST_WITH_VIRTIOFSD.get(release.id)
    version = parse_version(release.version_id)
    if program == "virtiofsd" and first is not None and version and version < first:
        return "qemu-system-common"
    return _PACKAGES[family][program].format(arch=_ARCH_NAMES.get(family, {}).get(arch, arch))


def install_argv(packages: Iterable[str], family: str) -> list[str] | None:
    """The command with which root installs these packages; None on NixOS, which declares them."""
    command = _INSTALL.get(family)
    return None if command is None else [*command, *packages]


def how_to_install(programs: Iterable[str], release: OsRelease, arch: str) -> str:
    """The next step for a person: one command for root, or the names of the packages."""
    wanted = tuple(programs)
    family = family_of(release)
    if family is None:
        labels = " and ".join(PROGRAMS[program].label for program in wanted)
        return f"Install {labels} with your distribution's package manager ({release.pretty})."
    packages = packages_for(wanted, release, arch)
    argv = install_argv(packages, family)
    if argv is None:
        return f"Add to environment.systemPackages, or use nix-shell -p: {' '.join(packages)}"
    command = shlex.join(argv)
    if family == "debian":
        command = f"apt-get update && {command}"
    return f"As root, once: {command}"


def missing_sentence(programs: Iterable[str]) -> str:
    """What is missing and why it is needed, e.g. for the head of an error."""
    wanted = [PROGRAMS[program] for program in programs]
    parts = [f"{program.label}, which {program.why}" for program in wanted]
    verb = "are" if len(parts) > 1 else "is"
    return f"{'; '.join(parts)}; {verb} not installed."
