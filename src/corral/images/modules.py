"""Kernel modules: which files have to be loaded, in which order, for the ones that are wanted.

Dependencies are read from the modules themselves, because a package that was unpacked rather than
installed has no modules.dep (depmod makes that at installation). Format: `.modinfo` is a section of
NUL-terminated `key=value` texts (include/linux/moduleinfo.h).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError
from .compression import decompress
from .elf import section

_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """The modules of one kernel. files: by name, with `_` for `-`. builtin: names, likewise."""

    release: str
    files: Mapping[str, Path]
    builtin: frozenset[str]


def module_name(path: str) -> str | None:
    """The name under which the kernel knows this file ("9pnet_virtio"), None for other files."""
    name = path.rsplit("/", 1)[-1]
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)].replace("-", "_")
    return None


def read_tree(folder: Path) -> ModuleTree:
    """The modules below `folder` (a lib/modules/RELEASE). Raises ImageError if unreadable."""
    try:
        builtin = (folder / "modules.builtin").read_text("utf-8").splitlines()
    except OSError as error:
        raise ImageError(f"cannot read {folder / 'modules.builtin'}: {error.strerror}.") from error
    files: dict[str, Path] = {}
    for parent, _, names in os.walk(folder):
        for file in names:
            name = module_name(file)
            if name is not None:
                # `updates` holds replacements of modules (depmod.d(5)); elsewhere names are unique
                path = Path(parent, file)
                if name not in files or "updates" in path.relative_to(folder).parts:
                    files[name] = path
    names_builtin = frozenset(n for n in map(module_name, builtin) if n is not None)
    return ModuleTree(folder.name, files, names_builtin)


def read_module(path: Path) -> bytes:
    """The module, decompressed. Raises ImageError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the kernel module {path}: {error.strerror}.") from error
    if path.suffix == ".ko":
        return data
    content = decompress(data)
    if content is None:
        raise ImageError(f"cannot unpack the kernel module {path}: unknown compression.")
    return content


def depends(module: bytes) -> tuple[str, ...]:
    """The names of the modules that this one needs loaded before it."""
    information = section(module, ".modinfo")
    if information is None:
        raise ImageError("a kernel module has no .modinfo section.")
    for text in information.split(b"\0"):
        key, _, value = text.partition(b"=")
        if key == b"depends":
            return tuple(
                n.replace("-", "_") for n in value.decode("ascii", "replace").split(",") if n
            )
    return ()


def load_order(
    tree: ModuleTree, wanted: tuple[str, ...], read: Callable[[Path], bytes] = read_module
) -> tuple[Path, ...]:
    """The files to load for the `wanted` names, each after those it depends on.

    Built-in ones need no file. Raises ImageError that names a module which the kernel lacks.
    """
    order: list[Path] = []
    seen: set[str] = set()

    def visit(name: str, asked_by: str | None) -> None:
        if name in seen or name in tree.builtin:
            return
        seen.add(name)
        path = tree.files.get(name)
        if path is None:
            needed = f", which {asked_by} needs" if asked_by else ""
            raise ImageError(
                f"the guest kernel {tree.release} has no module {name}{needed}.",
                hint="Name another kernel (machine.kernel), or leave it out so that corral "
                "downloads one that fits.",
            )
        try:
            needs = depends(read(path))
        except ImageError as error:
            raise ImageError(f"{path} is damaged: {error.message}", hint=error.hint) from error
        for need in needs:
            visit(need, name)
        order.append(path)

    for name in wanted:
        visit(name.replace("-", "_"), None)
    return tuple(order)
