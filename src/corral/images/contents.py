"""What the base image consists of: entries by path in the guest, and the files they come from."""

from __future__ import annotations

import ast
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from . import pack, pause
from .cpio import Entry, character_device, file, folder, symlink
from .elf import loadable
from .libraries import libraries, output, read_program
from .model import Kernel
from .modules import module_name, read_module

GUEST_PACKAGE = "corral_guest"
INIT = "from corral_guest import supervisor\nsupervisor.main()\n"

# Beside what corral_guest imports: what the interpreter looks for by itself while it starts, and
# what a person at the guest's console would miss first.
_EXTRA_MODULES = (
    "encodings.aliases",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "fcntl",
    "select",
    "signal",
    "socket",
    "struct",
    "termios",
)
_FOLDERS = ("proc", "sys", "dev", "run", "etc", "mnt", "root", "newroot")


class Packed(msgspec.Struct, frozen=True):
    """What pack.py prints. library: "lib" or "lib64". extensions: path by file name."""

    version: str
    library: str
    extensions: dict[str, str]
    sources: list[str]
    stdlib: str


def collect(
    kernel: Kernel, python: Path, bwrap: Path, guest: Path
) -> tuple[dict[str, Entry], list[Path]]:
    """All entries of the archive, and the files of this host that they are made of.

    guest: the folder of corral_guest. Raises ImageError.
    """
    entries = {f"/{name}": folder() for name in _FOLDERS}
    entries["/tmp"] = folder(0o1777)  # noqa: S108 - a folder in the archive
    entries["/dev/console"] = character_device(5, 1, 0o600)
    for name in ("bin", "sbin", "lib", "lib64"):
        entries[f"/{name}"] = symlink(f"usr/{name}")
        entries[f"/usr/{name}"] = folder()
    packed, library_zip, init = _packed(python, guest)
    inputs = [Path(source) for source in packed.sources]
    standard = f"/usr/{packed.library}/python{packed.version}"
    zip_name = f"python{packed.version.replace('.', '')}.zip"
    entries[f"/usr/{packed.library}/{zip_name}"] = file(library_zip)
    entries[f"{standard}/os.py"] = file(b"")  # the landmark of getpath.py
    entries["/corral/init.pyc"] = file(init)
    entries["/corral/pause"] = file(pause.program(os.uname().machine), 0o755)
    programs = {"/usr/bin/python3": python, "/usr/bin/bwrap": bwrap}
    for name, path in packed.extensions.items():
        programs[f"{standard}/lib-dynload/{name}"] = Path(path)
    entries[f"{standard}/lib-dynload"] = folder()
    shared = libraries(programs.values())
    for target, source in (programs | shared).items():
        entries[target] = file(loadable(read_program(source)), 0o755)
        inputs.append(source)
    for place, modules in (("modules", kernel.modules), ("modules-later", kernel.later)):
        for number, module in enumerate(modules):
            name = f"{number:02}-{module_name(str(module))}.ko"
            entries[f"/{place}/{name}"] = file(read_module(module))
            inputs.append(module)
    return entries, inputs


def needed_modules(guest: Path) -> list[str]:
    """The names of all modules of corral_guest and of all that they import, also late."""
    names: set[str] = {*_EXTRA_MODULES}
    for source in sorted(guest.glob("*.py")):
        names.add(GUEST_PACKAGE if source.stem == "__init__" else f"{GUEST_PACKAGE}.{source.stem}")
        names.update(_imports(ast.parse(source.read_bytes(), str(source))))
    return sorted(names)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names imported anywhere, but for what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from _imports(other)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module and node.module != "__future__":
                yield node.module
        else:
            yield from _imports(node)


def _packed(python: Path, guest: Path) -> tuple[Packed, bytes, bytes]:
    """What this interpreter says it needs, its zip, and INIT as it compiles it."""
    script = Path(pack.__file__)
    with tempfile.TemporaryDirectory(prefix="corral-") as scratch:
        options = ["-I", "-S", "-E", "-B"]
        argv = [str(python), *options, str(script), str(guest.parent), scratch, INIT]
        printed = output([*argv, *needed_modules(guest)], "the guest's modules")
        packed = msgspec.json.decode(printed, type=Packed)
        library = Path(scratch, "library.zip").read_bytes()
        return packed, library, Path(scratch, "init.pyc").read_bytes()
