"""Programs that this host's distribution lacks or has too old: from a newer Debian suite.

They are unpacked below the cache with all their libraries and run through their own loader, so
nothing of this host has to fit them: trixie's virtiofsd and QEMU and forky's vhost-device-vsock run
on bookworm this way.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .. import paths
from ..errors import FetchError
from ..events import Phase, Report
from ..host.programs import QEMU_BY_ARCH, Program, version_in
from .apt import Apt, run, suite_apt, unpack
from .elf import interpreter
from .locks import locked, mebibytes, new_folder, write_file

_STAMP = "corral.json"
_ELF_HEAD = 1 << 16  # bytes: an ELF file begins with its header, its segments and its loader's name


@dataclass(frozen=True, slots=True)
class Tool:
    """Where a program is had. binary: its path when unpacked.

    files: what else it reads, by path when unpacked. data: its options that name their folders,
    each option and folder a pair.
    """

    package: str
    suite: str
    binary: str
    files: tuple[str, ...] = ()
    data: tuple[tuple[str, str], ...] = ()


def _qemu() -> Tool:
    """QEMU's firmware for -kernel: SeaBIOS, which starts an option ROM that starts the kernel."""
    arch = {"x86_64": "x86", "aarch64": "arm"}.get(platform.machine(), "x86")
    return Tool(
        f"qemu-system-{arch}",
        "trixie",
        f"usr/bin/{QEMU_BY_ARCH.get(platform.machine(), 'qemu-system-x86_64')}",
        (
            *("usr/share/seabios/bios-256k.bin", "usr/share/qemu/kvmvapic.bin"),
            *("usr/share/qemu/linuxboot_dma.bin", "usr/share/qemu/pvh.bin"),
        ),
        (("-L", "usr/share/seabios"), ("-L", "usr/share/qemu")),
    )


TOOLS = {
    "qemu": _qemu(),
    "virtiofsd": Tool("virtiofsd", "trixie", "usr/libexec/virtiofsd"),
    "vhost-device-vsock": Tool("vhost-device-vsock", "forky", "usr/bin/vhost-device-vsock"),
}


class _Stamp(msgspec.Struct, frozen=True):
    """Written when everything else is there. files: sizes by path relative to the folder."""

    version: str
    files: dict[str, int]


def fetch_tool(name: str, report: Report) -> Program:
    """A program of TOOLS, from the cache or downloaded; proven by asking its version.

    Raises FetchError (what was tried, and apt's last lines) or ImageError (no room).
    """
    tool = TOOLS[name]
    folder = paths.cache_dir() / "tools" / name
    known = _cached(folder, name)
    if known is not None:
        return known

    def waiting() -> None:
        report(Phase(name="packages", message=f"waiting for another corral to download {name}"))

    with locked(f"tool-{name}", waiting):
        known = _cached(folder, name)
        if known is not None:
            return known
        apt = suite_apt(tool.suite, report)
        with locked(f"apt-{apt.name}", waiting):
            version = apt.with_fresh_lists(lambda: _download(apt, name, folder, report))
    return Program(_argv(folder, name), version, (str(folder),))


def cached_tool(name: str) -> Program | None:
    """The program when it was downloaded before, without a look at the network."""
    return _cached(paths.cache_dir() / "tools" / name, name)


def _download(apt: Apt, name: str, folder: Path, report: Report) -> str:
    """Download and unpack the tool to `folder`; its version."""
    packages = apt.with_dependencies(TOOLS[name].package)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    apt.need_space(folder.parent, packages, f"Downloading {name}")
    size = mebibytes(sum(package.size for package in packages))
    message = f"downloading {name} from Debian {TOOLS[name].suite} ({size})"
    report(Phase(name="packages", message=message))
    with new_folder(folder) as staging:
        debs = staging / "packages"
        debs.mkdir()
        unpack(apt.download(packages, debs), staging)
        shutil.rmtree(debs)
        sizes = _keep_needed(staging, TOOLS[name])
        version = _version(staging, name)
        write_file(staging / _STAMP, [msgspec.json.encode(_Stamp(version, sizes))], 0o644)
    return version


def _keep_needed(folder: Path, tool: Tool) -> dict[str, int]:
    """Remove all files but the binary, its data and shared libraries; the sizes of those.

    What else the packages hold is not used, and some of it is setuid root.
    """
    sizes = {}
    kept = {folder / path for path in (tool.binary, *tool.files)}
    for parent, folders, names in os.walk(folder, topdown=False):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            path = Path(parent, name)
            # gconv: character sets; qemu: modules for devices that no machine of ours has
            unused = ".so" not in name or path.parent.name in ("gconv", "qemu")
            if unused and path not in kept:
                path.unlink()
            elif path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
        if not any(os.scandir(parent)):
            Path(parent).rmdir()
    return sizes


def _cached(folder: Path, name: str) -> Program | None:
    """The program that is unpacked there, None when it is not whole."""
    try:
        stamp = msgspec.json.decode((folder / _STAMP).read_bytes(), type=_Stamp)
        if any((folder / file).stat().st_size != size for file, size in stamp.files.items()):
            return None
        return Program(_argv(folder, name), stamp.version, (str(folder),))
    except (OSError, msgspec.DecodeError, FetchError):
        return None


def _argv(folder: Path, name: str) -> tuple[str, ...]:
    """The program's own loader, told where the libraries are (ld.so(8)), and the program."""
    binary = folder / TOOLS[name].binary
    with binary.open("rb") as file:
        loader = interpreter(file.read(_ELF_HEAD))
    data = [text for option, path in TOOLS[name].data for text in (option, str(folder / path))]
    if loader is None:
        return (str(binary), *data)
    # the loader's link in lib64 may be absolute: it would lead to this host's own
    for libraries in sorted(
        [*folder.glob("usr/lib/*-linux-gnu*"), *folder.glob("lib/*-linux-gnu*")]
    ):
        own = libraries / Path(loader).name
        if own.is_file():
            options = ("--library-path", str(libraries), "--argv0", binary.name)
            return (str(own), *options, str(binary), *data)
    raise FetchError(f"the packages of {name} hold no loader {Path(loader).name}.")


def _version(folder: Path, name: str) -> str:
    """What it says its version is: that it runs here. Raises FetchError."""
    result = run([*_argv(folder, name), "--version"])
    version = version_in(result.stdout or result.stderr)
    if result.returncode != 0 or not version:
        raise FetchError(
            f"{name} of Debian {TOOLS[name].suite} does not run here (status {result.returncode}).",
            detail=(result.stdout + result.stderr).strip()[-2000:] or None,
        )
    return version
