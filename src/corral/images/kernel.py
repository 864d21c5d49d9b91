"""The guest's kernel: an image that QEMU boots, and the modules to load, in order.

Looked for in this order: the one the user names; the one NixOS booted; the host's own, when its
image and modules can be read and have what is wanted; the distribution's package, downloaded and
unpacked into the cache. What was found is remembered, with the size and time of each file it
consists of, so that the next start reads one small file.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .. import paths
from ..errors import FetchError, ImageError
from ..events import Notice, Phase, Report
from . import kernel_package
from .elf import boots_by_pvh, is_elf
from .locks import locked, need_space, write_file
from .modules import load_order, read_tree
from .vmlinux import is_bzimage, release, unpack

DEFAULT_MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtiofs",
    "overlay",
    "qemu_fw_cfg",
    "vmw_vsock_virtio_transport",
)
NINE_P_MODULES = ("9p", "9pnet_virtio")

_FORMAT = 1  # raise it when what is cached changes its meaning


@dataclass(frozen=True, slots=True)
class Kernel:
    """image: an ELF vmlinux where it could be unpacked, else what the distribution boots.
    release: as `uname -r` says it. modules: files in load order. origin: where it is from."""

    image: Path
    release: str
    modules: tuple[Path, ...]
    origin: str


class _File(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was: a cached answer holds while none of its files has changed."""

    path: str
    size: int
    modified: int


class _Record(msgspec.Struct, frozen=True):
    image: str
    release: str
    modules: list[str]
    origin: str
    files: list[_File]


def ensure_kernel(*, wanted: Path | None, modules: tuple[str, ...], report: Report) -> Kernel:
    """A kernel with these modules, from `wanted` if given, else the best that can be had.

    Raises ImageError (no such kernel, or it lacks a module: named) or FetchError.
    """
    record = _record_path(wanted, modules)
    known = _recall(record)
    if known is not None:
        return known

    def waiting() -> None:
        report(Phase(name="kernel", message="waiting for another corral to get the guest kernel"))

    with locked("kernel", waiting):
        known = _recall(record)
        if known is not None:
            return known
        report(Phase(name="kernel", message="getting the guest kernel ready"))
        found = _find(wanted, modules, report)
        kernel, files = _prepare(found, modules, report)
        _remember(record, kernel, files)
    return kernel


def _find(
    wanted: Path | None, modules: tuple[str, ...], report: Report
) -> kernel_package.FoundKernel:
    """The first source that has a kernel with all modules."""
    if wanted is not None:
        return _named(wanted)
    refused = []
    for found in _on_host():
        try:
            load_order(read_tree(found.modules), modules)
            found.image.read_bytes()
            return found
        except OSError as error:
            refused.append(f"{found.image}: {error.strerror}")
        except ImageError as error:
            refused.append(f"{found.image}: {error.message}")
    try:
        return kernel_package.fetch(modules, report)
    except (FetchError, ImageError) as error:
        tried = "".join(f"\nnot used: {reason}" for reason in refused)
        raise type(error)(
            f"no guest kernel: {error.message}{tried}",
            hint=error.hint,
            detail=error.detail,
        ) from error


def _named(image: Path) -> kernel_package.FoundKernel:
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
    roots = [beside, beside.parent, Path("/"), Path("/usr"), _NIXOS / "kernel-modules"]
    for root in roots:
        folder = root / "lib" / "modules" / version
        if (folder / "modules.builtin").is_file():
            return kernel_package.FoundKernel(image, folder, version, f"named: {image}")
    raise ImageError(
        f"the modules of the kernel {image} ({version}) were not found; looked in "
        + ", ".join(str(root / "lib/modules" / version) for root in roots)
        + ".",
        hint=f"Install them (`make modules_install INSTALL_MOD_PATH={beside}`).",
    )


_NIXOS = Path("/run/booted-system")


def _on_host() -> Iterator[kernel_package.FoundKernel]:
    """Kernels that are installed here, whether or not they can be read."""
    for folder in sorted((_NIXOS / "kernel-modules/lib/modules").glob("*")):
        yield kernel_package.FoundKernel(_NIXOS / "kernel", folder, folder.name, "NixOS")
    version = os.uname().release
    folder = Path("/lib/modules") / version
    if not (folder / "modules.builtin").is_file():
        return
    for image in (Path(f"/boot/vmlinuz-{version}"), folder / "vmlinuz"):
        if image.exists():
            yield kernel_package.FoundKernel(image, folder, version, "this host's own")


def _prepare(
    found: kernel_package.FoundKernel, modules: tuple[str, ...], report: Report
) -> tuple[Kernel, list[Path]]:
    """The kernel as it is booted, and the files on which it depends."""
    order = load_order(read_tree(found.modules), modules)
    image = _bootable(found.image, report)
    kernel = Kernel(image, found.release, order, found.origin)
    return kernel, [image, found.image, *order, found.modules / "modules.builtin"]


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
    need_space(unpacked.parent, len(content), "Unpacking the guest kernel")
    write_file(unpacked, [content], 0o644)
    return unpacked


def _record_path(wanted: Path | None, modules: tuple[str, ...]) -> Path:
    name = str(wanted.absolute()) if wanted else None
    question = msgspec.json.encode([_FORMAT, name, list(modules), os.uname().release])
    key = hashlib.sha256(question).hexdigest()[:24]
    return paths.cache_dir() / "kernels" / f"{key}.json"


def _recall(record: Path) -> Kernel | None:
    """The remembered answer, None when there is none or a file of it has changed."""
    try:
        known = msgspec.json.decode(record.read_bytes(), type=_Record)
        if any(_file(Path(file.path)) != file for file in known.files):
            return None
    except (OSError, msgspec.DecodeError):
        return None
    modules = tuple(Path(module) for module in known.modules)
    return Kernel(Path(known.image), known.release, modules, known.origin)


def _remember(record: Path, kernel: Kernel, files: list[Path]) -> None:
    known = _Record(
        image=str(kernel.image),
        release=kernel.release,
        modules=[str(module) for module in kernel.modules],
        origin=kernel.origin,
        files=[_file(file) for file in files],
    )
    write_file(record, [msgspec.json.encode(known)])


def _file(path: Path) -> _File:
    status = path.stat()
    return _File(str(path), status.st_size, status.st_mtime_ns)
