"""Where a guest kernel can come from, and how one is made ready for QEMU."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from .. import paths
from ..errors import FetchError, ImageError
from ..events import Notice, Report
from .elf import boots_by_pvh, is_elf
from .kernel_package import FoundKernel, fetch
from .locks import need_space, remove_leftovers, write_file
from .model import Kernel
from .modules import load_order, read_tree
from .vmlinux import is_bzimage, release, unpack

_NIXOS = "run/booted-system"  # what NixOS booted, whatever has been switched to since


def find(wanted: Path | None, modules: tuple[str, ...], report: Report) -> FoundKernel:
    """The first source that has a kernel with all modules."""
    if wanted is not None:
        return _named(wanted)
    refused = []
    for found in on_host(Path("/"), os.uname().release):
        try:
            load_order(read_tree(found.modules), modules)
            found.image.read_bytes()
            return found
        except OSError as error:
            refused.append(f"{found.image}: {error.strerror}")
        except ImageError as error:
            refused.append(f"{found.image}: {error.message}")
    try:
        return fetch(modules, report)
    except (FetchError, ImageError) as error:
        tried = "".join(f"\nnot used: {reason}" for reason in refused)
        raise type(error)(
            f"no guest kernel: {error.message}{tried}",
            hint=error.hint,
            detail=error.detail,
        ) from error


def _named(image: Path) -> FoundKernel:
    """The kernel that the user names, with the modules that belong to it."""
    try:
        data = image.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read the kernel {image}: {error.strerror}.",
            hint="Name a readable vmlinuz or vmlinux (machine.kernel).",
        ) from error
    version = release(data)
    if version is None:
        raise ImageError(
            f"{image} is not a Linux kernel image (it does not say its version).",
            hint="Name a vmlinuz or vmlinux (machine.kernel).",
        )
    beside = image.resolve().parent
    roots = [beside, beside.parent, Path("/"), Path("/usr"), Path("/", _NIXOS, "kernel-modules")]
    for root in roots:
        folder = root / "lib" / "modules" / version
        if (folder / "modules.builtin").is_file():
            return FoundKernel(image, folder, version, f"named: {image}")
    raise ImageError(
        f"the modules of the kernel {image} ({version}) were not found; looked in "
        + ", ".join(str(root / "lib/modules" / version) for root in roots)
        + ".",
        hint=f"Install them (`make modules_install INSTALL_MOD_PATH={beside}`).",
    )


def on_host(root: Path, version: str) -> Iterator[FoundKernel]:
    """Kernels that are installed here, whether or not they can be read.

    root: "/". version: of the running kernel.
    """
    nixos = root / _NIXOS
    for folder in sorted((nixos / "kernel-modules/lib/modules").glob("*")):
        yield FoundKernel(nixos / "kernel", folder, folder.name, "NixOS")
    folder = root / "lib/modules" / version
    if not (folder / "modules.builtin").is_file():
        return
    for image in (root / f"boot/vmlinuz-{version}", folder / "vmlinuz"):
        if image.exists():
            yield FoundKernel(image, folder, version, "this host's own")


def prepare(
    found: FoundKernel, modules: tuple[str, ...], later: tuple[str, ...], report: Report
) -> tuple[Kernel, list[Path]]:
    """The kernel as it is booted, and the files on which it depends."""
    tree = read_tree(found.modules)
    order = load_order(tree, modules)
    there = tuple(name for name in later if name in tree.files)
    further = tuple(path for path in load_order(tree, there) if path not in order)
    image = _bootable(found.image, report)
    kernel = Kernel(image, found.release, order, found.origin, further)
    return kernel, [image, found.image, *order, *further, found.modules / "modules.builtin"]


def _bootable(image: Path, report: Report) -> Path:
    """The ELF kernel inside `image`, unpacked once; `image` itself where that cannot be."""
    data = image.read_bytes()
    if is_elf(data) and platform.machine() == "x86_64" and not boots_by_pvh(data):
        raise ImageError(
            f"QEMU cannot start the kernel {image}: an ELF kernel needs a PVH entry.",
            hint="Build it with CONFIG_PVH=y, or name the bzImage (vmlinuz).",
        )
    if not is_bzimage(data):
        return image
    unpacked = paths.cache_dir() / "kernels" / f"vmlinux-{hashlib.sha256(data).hexdigest()[:24]}"
    try:
        content = unpack(data)
    except ImageError as error:
        raise ImageError(f"{image}: {error.message}", hint=error.hint) from error
    if content is None:
        report(
            Notice(
                level="info",
                message=f"{image} is booted compressed: starting takes about 0.5 s longer.",
            )
        )
        return image
    unpacked.parent.mkdir(mode=0o700, exist_ok=True)
    remove_leftovers(unpacked)
    need_space(unpacked.parent, len(content), "Unpacking the guest kernel")
    write_file(unpacked, [content], 0o644)
    return unpacked
