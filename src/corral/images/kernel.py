"""The guest's kernel: an image that QEMU boots, and the modules to load, in order.

Looked for in this order: the one the user names; the one NixOS booted; the host's own, when its
image and modules can be read and have what is wanted; the distribution's package, downloaded and
unpacked into the cache. What was found is remembered, with the size and time of each file it
consists of, so that the next start reads one small file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from .. import paths
from ..events import Phase, Report
from .locks import locked, write_file
from .model import Kernel
from .watched import FileState, state

# kernel_sources is imported when there is no answer in the cache: a warm start needs none of it

_FORMAT = 2  # raise it when what is cached changes its meaning


class _Record(msgspec.Struct, frozen=True):
    image: str
    release: str
    modules: list[str]
    later: list[str]
    origin: str
    files: list[FileState]


def ensure_kernel(
    *,
    wanted: Path | None,
    modules: tuple[str, ...],
    later: tuple[str, ...] = (),
    report: Report,
) -> Kernel:
    """A kernel with these modules, from `wanted` if given, else the best that can be had.

    later: modules for what not every guest wants; those that the kernel lacks are left out.
    Raises ImageError (no such kernel, or it lacks a module: named) or FetchError.
    """
    record = _record_path(wanted, modules, later)
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
        from . import kernel_sources

        found = kernel_sources.find(wanted, modules, report)
        kernel, files = kernel_sources.prepare(found, modules, later, report)
        _remember(record, kernel, files)
    return kernel


def _record_path(wanted: Path | None, modules: tuple[str, ...], later: tuple[str, ...]) -> Path:
    name = str(wanted.absolute()) if wanted else None
    question = msgspec.json.encode([_FORMAT, name, list(modules), list(later), os.uname().release])
    key = hashlib.sha256(question).hexdigest()[:24]
    return paths.cache_dir() / "kernels" / f"{key}.json"


def _recall(record: Path) -> Kernel | None:
    """The remembered answer, None when there is none or a file of it has changed."""
    try:
        known = msgspec.json.decode(record.read_bytes(), type=_Record)
        if any(state(Path(file.path)) != file for file in known.files):
            return None
    except (OSError, msgspec.DecodeError):
        return None
    modules = tuple(Path(module) for module in known.modules)
    later = tuple(Path(module) for module in known.later)
    return Kernel(Path(known.image), known.release, modules, known.origin, later)


def _remember(record: Path, kernel: Kernel, files: list[Path]) -> None:
    known = _Record(
        image=str(kernel.image),
        release=kernel.release,
        modules=[str(module) for module in kernel.modules],
        later=[str(module) for module in kernel.later],
        origin=kernel.origin,
        files=[state(file) for file in files],
    )
    write_file(record, [msgspec.json.encode(known)])
