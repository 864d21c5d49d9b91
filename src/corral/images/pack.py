"""Run by the interpreter that goes into the guest: packs its own standard library for it.

    python3 -I -S -E pack.py FOLDER OUTPUT NAME...

FOLDER holds the package corral_guest. OUTPUT becomes a zip, byte-compiled, of all the modules that
importing each NAME brings in. On standard output: a JSON object (see `Packed` in base.py). Only the
standard library is used, for this interpreter need not have corral's dependencies; and it is
imported late, so that what only this script uses stays out. The same input gives the same bytes.
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


def main(folder: str, output: str, names: list[str]) -> None:
    """Write the zip and print what else the modules in it need."""
    sys.path.append(folder)
    for name in names:
        importlib.import_module(name)
    modules = dict(sys.modules)

    import json
    import sysconfig
    import zipfile

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
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
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
    """The file to pack for a module; None for a built-in one or another's second name.

    Frozen ones have a source too; it is packed, for an interpreter may be built without them.
    """
    from pathlib import Path

    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or name in LEFT_OUT or spec.origin in (None, "built-in"):
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
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
