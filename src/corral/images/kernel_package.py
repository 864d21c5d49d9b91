"""The distribution's kernel package, downloaded and unpacked into the cache."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .. import paths
from ..errors import FetchError, ImageError
from ..events import Phase, Report
from .apt import Apt, Package, machine, release_apt, unpack
from .locks import locked, mebibytes, new_folder, write_file

# What a guest on virtual hardware never loads: left out of the cache (250 of 400 MB).
_HARDWARE = (
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/staging",
    "drivers/iio",
    "drivers/usb",
    "drivers/net/ethernet",
    "drivers/net/wireless",
)
_STAMP = "corral.json"


@dataclass(frozen=True, slots=True)
class FoundKernel:
    """A kernel before it is prepared. modules: its lib/modules/RELEASE."""

    image: Path
    modules: Path
    release: str
    origin: str


class _Stamp(msgspec.Struct, frozen=True):
    """Written when everything else is there. Paths are relative to the folder."""

    image: str
    image_size: int
    modules: str
    release: str
    origin: str
    module_count: int


def fetch(modules: tuple[str, ...], report: Report) -> FoundKernel:
    """The distribution's kernel, from the cache or downloaded. Raises FetchError or ImageError.

    Debian's cloud kernel is a third of the generic one and lacks 9p; the generic one has all.
    """
    flavour = "generic" if any(module.startswith("9p") for module in modules) else "cloud"
    folder = paths.cache_dir() / "kernels" / flavour
    found = _cached(folder)
    if found is not None:
        return found
    report(Phase(name="kernel", message="looking for the guest kernel's package"))
    apt = release_apt(report)
    with locked(f"apt-{apt.name}"):
        stamp = apt.with_fresh_lists(lambda: _download(apt, flavour, folder, report))
    return _found(folder, stamp)


def _download(apt: Apt, flavour: str, folder: Path, report: Report) -> _Stamp:
    """Download and unpack the kernel to `folder`."""
    packages = _packages(apt, flavour)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    apt.need_space(folder.parent, packages, "Downloading the guest kernel")
    size = mebibytes(sum(package.size for package in packages))
    report(Phase(name="kernel", message=f"downloading the guest kernel ({size})"))
    with new_folder(folder) as staging:
        debs = staging / "packages"
        debs.mkdir()
        unpack(apt.download(packages, debs), staging)
        shutil.rmtree(debs)
        stamp = _stamp(staging, f"package {packages[0].name} {packages[0].version}")
        write_file(staging / _STAMP, [msgspec.json.encode(stamp)], 0o644)
    return stamp


def candidates(flavour: str, architecture: str) -> tuple[str, ...]:
    """The names of the packages that depend on the newest kernel: Debian's, then Ubuntu's.

    Ubuntu's names and layout are followed and not proven.
    """
    generic = (f"linux-image-{architecture}", "linux-image-generic")
    small = (f"linux-image-cloud-{architecture}", "linux-image-virtual")
    return generic if flavour == "generic" else (*small, *generic)


def kernel_dependencies(package: Package) -> list[str]:
    """Those dependencies that hold a kernel or its modules, by their names.

    Debian: linux-image-6.1.0-56-cloud-amd64. Ubuntu: linux-image-*, linux-modules-*,
    linux-modules-extra-*.
    """
    pattern = re.compile(r"linux-(image|modules|modules-extra)-\d\S*")
    return [name for name in package.depends if pattern.fullmatch(name)]


def _packages(apt: Apt, flavour: str) -> list[Package]:
    """The packages to unpack: what the newest kernel's name stands for."""
    names = candidates(flavour, machine())
    top = next((found for found in map(apt.show, names) if found is not None), None)
    if top is None:
        raise FetchError(
            f"no package {' or '.join(names)} in the archives of this host's release "
            f"({apt.tried}).",
            hint="Name a kernel of your own (machine.kernel).",
        )
    wanted = kernel_dependencies(top)
    packages: dict[str, Package] = {}
    while wanted:
        name = wanted.pop(0)
        package = None if name in packages else apt.show(name)
        if package is not None:
            packages[name] = package
            wanted += kernel_dependencies(package)
    if not packages:
        raise FetchError(f"the package {top.name} {top.version} depends on no kernel.")
    return list(packages.values())


def _stamp(folder: Path, origin: str) -> _Stamp:
    """What was unpacked, without the modules of hardware that no guest has."""
    images = sorted((folder / "boot").glob("vmlinuz-*"))
    trees = sorted([*folder.glob("lib/modules/*"), *folder.glob("usr/lib/modules/*")])
    if len(images) != 1 or not trees:
        raise ImageError(f"{origin}: not one kernel and its modules, but {len(images)} kernels.")
    for tree in trees:
        for hardware in _HARDWARE:
            shutil.rmtree(tree / "kernel" / hardware, ignore_errors=True)
    images[0].chmod(0o644)
    return _Stamp(
        image=str(images[0].relative_to(folder)),
        image_size=images[0].stat().st_size,
        modules=str(trees[0].relative_to(folder)),
        release=trees[0].name,
        origin=origin,
        module_count=_count(trees[0]),
    )


def _cached(folder: Path) -> FoundKernel | None:
    """The kernel that is unpacked there, None when it is not whole."""
    try:
        stamp = msgspec.json.decode((folder / _STAMP).read_bytes(), type=_Stamp)
        if (folder / stamp.image).stat().st_size != stamp.image_size:
            return None
    except (OSError, msgspec.DecodeError):
        return None
    return _found(folder, stamp) if _count(folder / stamp.modules) == stamp.module_count else None


def _count(tree: Path) -> int:
    return sum(1 for path in tree.rglob("*.ko*") if path.stat().st_size > 0)


def _found(folder: Path, stamp: _Stamp) -> FoundKernel:
    return FoundKernel(folder / stamp.image, folder / stamp.modules, stamp.release, stamp.origin)
