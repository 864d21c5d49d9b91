"""Run by the interpreter that goes into the guest: packs its own standard library for it.

    python3 -I -S -E pack.py FOLDER OUTPUT INIT NAME...

FOLDER holds the package corral_guest. In OUTPUT it makes library.zip, byte-compiled, of all the
modules that importing each NAME brings in; and init.pyc from the source text INIT. On standard
output: a JSON object (see `Packed` in base.py). Only the standard library is used, for this
interpreter need not have corral's dependencies; and it is imported late, so that what only this
script uses stays out. The same input gives the same bytes.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # importing typing would put it into the guest
if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType
    from zipfile import ZipFile

# The interpreter holds these itself, or takes them by -S only.
LEFT_OUT = ("__main__", "_frozen_importlib", "_frozen_importlib_external", "site", "zipimport")


def main(folder: str, output: str, init: str, *names: str) -> None:
    """Write the two files and print what else the modules in the zip need."""
    sys.path.append(folder)
    for name in names:
        importlib.import_module(name)
    modules = dict(sys.modules)

    import json
    import sysconfig
    import zipfile
    from pathlib import Path

    sources: dict[str, Path] = {}
    extensions: dict[str, str] = {}
    for name, module in sorted(modules.items()):
        origin = file_of(name, module)
        if origin is None:
            continue
        if origin.suffix == ".py":
            package = hasattr(module, "__path__")
            sources[name.replace(".", "/") + ("/__init__.pyc" if package else ".pyc")] = origin
        else:
            extensions[origin.name] = str(origin)
    Path(output, "init.pyc").write_bytes(compiled(init.encode(), "init.pyc"))
    with zipfile.ZipFile(Path(output, "library.zip"), "w", zipfile.ZIP_STORED) as archive:
        for member, source in sorted(sources.items()):
            write(archive, member, compiled(source.read_bytes(), member))
    packed = {
        "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "library": sys.platlibdir,
        "extensions": extensions,
        "sources": [str(path) for path in sources.values()],
        "stdlib": sysconfig.get_paths()["stdlib"],
    }
    print(json.dumps(packed))


def file_of(name: str, module: ModuleType) -> Path | None:
    """The file to pack for a module; None for one that the interpreter holds itself.

    Frozen ones have a source too; it is packed, for an interpreter may be built without them.
    """
    from importlib.machinery import PathFinder
    from pathlib import Path

    spec = getattr(module, "__spec__", None)
    if spec is None or name in LEFT_OUT:
        return None
    if spec.name != name:
        # a module that put another in its place while it was imported (collections.abc), or just
        # a second name (os.path): only the first kind has a file of its own
        parent, _, _ = name.rpartition(".")
        folders = getattr(sys.modules.get(parent), "__path__", None)
        spec = PathFinder.find_spec(name, folders) if folders or not parent else None
    if spec is None or spec.origin in (None, "built-in"):
        return None
    origin = getattr(module, "__file__", None) if spec.origin == "frozen" else spec.origin
    return Path(origin) if origin else None


def compiled(source: bytes, member: str) -> bytes:
    """A .pyc that is never checked against a source file (PEP 552: flags 1, hash unchecked).

    The name in its tracebacks is that in the zip: the bytes do not depend on where corral lies.
    """
    import importlib.util
    import marshal

    code = compile(source, f"<guest>/{member[:-1]}", "exec", dont_inherit=True, optimize=2)
    flags = (1).to_bytes(4, "little")
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + digest + marshal.dumps(code)


def write(archive: ZipFile, name: str, data: bytes) -> None:
    """Add a member with the earliest time that a zip can have."""
    import zipfile

    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.external_attr = 0o100644 << 16
    archive.writestr(member, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
