"""The guest's base image: a cpio archive made from this host's own files.

    /usr/bin/python3          the interpreter that runs corral itself
    /usr/lib/python3XY.zip    corral_guest and the standard modules it needs, byte-compiled
    /usr/lib/python3.XY       extension modules, and os.py: by which the interpreter finds /usr
    /usr/bin/bwrap            jails
    /usr/lib/..., /usr/lib64  the shared libraries these need, and their loader
    /modules/NN-name.ko       kernel modules, in load order
    /corral/init.pyc          what the kernel starts (see INIT)

Boot it with `rdinit=/usr/bin/python3 -- -I -S -E /corral/init.pyc`. Not compressed: under TCG,
decompression costs more than reading. The same input files give the same bytes and the same key.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .. import paths
from ..errors import ImageError
from ..events import Phase, Report
from . import pack
from .cpio import Entry, archive, character_device, file, folder, symlink
from .elf import interpreter, is_elf, loadable
from .kernel import Kernel
from .locks import locked, need_space, write_file
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
_FORMAT = 1  # raise it when the same inputs shall give another image
_UNUSED_AGE = 86400.0  # seconds after which an image that no manifest names is removed
_CLOCK_STEP = 20_000_000  # ns; file times come from a clock that advances by up to 10 ms
_HELPER_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class BaseImage:
    """path: the archive. key: the SHA-256 of its content, in hexadecimal digits."""

    path: Path
    key: str


class Packed(msgspec.Struct, frozen=True):
    """What pack.py prints. library: "lib" or "lib64". extensions: path by file name."""

    version: str
    library: str
    extensions: dict[str, str]
    sources: list[str]
    stdlib: str


class _Input(msgspec.Struct, frozen=True, array_like=True):
    path: str
    size: int
    modified: int


class _Manifest(msgspec.Struct, frozen=True):
    """Which image was made, and from which files as they were."""

    key: str
    size: int
    inputs: list[_Input]


def ensure_base_image(kernel: Kernel, python: Path, bwrap: Path, report: Report) -> BaseImage:
    """The base image for this kernel, interpreter and bwrap, built if an input has changed.

    python: the real base interpreter, not a venv's link. Raises ImageError.
    """
    question = [_FORMAT, str(python), str(bwrap), str(_guest_folder())]
    question += [str(module) for module in kernel.modules]
    name = hashlib.sha256(msgspec.json.encode(question)).hexdigest()[:24]
    manifest = paths.cache_dir() / "base" / f"{name}.json"
    known = _recall(manifest)
    if known is not None:
        return known

    def waiting() -> None:
        report(Phase(name="base-image", message="waiting for another corral to build the image"))

    with locked("base-image", waiting):
        known = _recall(manifest)
        if known is not None:
            return known
        report(Phase(name="base-image", message="building the base image"))
        started = time.time_ns() - _CLOCK_STEP
        entries, inputs = collect(kernel, python, bwrap)
        image, size = _write(entries)
        _remember(manifest, image, size, inputs, started)
        return image


def collect(kernel: Kernel, python: Path, bwrap: Path) -> tuple[dict[str, Entry], list[Path]]:
    """All entries of the archive, and the files of this host that they are made of."""
    entries = {f"/{name}": folder() for name in _FOLDERS}
    entries["/tmp"] = folder(0o1777)  # noqa: S108 - a folder in the archive
    entries["/dev/console"] = character_device(5, 1, 0o600)
    for name in ("bin", "sbin", "lib", "lib64"):
        entries[f"/{name}"] = symlink(f"usr/{name}")
        entries[f"/usr/{name}"] = folder()
    packed, library_zip, init = _packed(python)
    inputs = [Path(source) for source in packed.sources]
    standard = f"/usr/{packed.library}/python{packed.version}"
    zip_name = f"python{packed.version.replace('.', '')}.zip"
    entries[f"/usr/{packed.library}/{zip_name}"] = file(library_zip)
    entries[f"{standard}/os.py"] = file(b"")  # the landmark of getpath.py
    entries["/corral/init.pyc"] = file(init)
    programs = {"/usr/bin/python3": python, "/usr/bin/bwrap": bwrap}
    for name, path in packed.extensions.items():
        programs[f"{standard}/lib-dynload/{name}"] = Path(path)
    entries[f"{standard}/lib-dynload"] = folder()
    libraries = _libraries(programs.values())
    for target, source in (programs | libraries).items():
        entries[target] = file(loadable(_read(source)), 0o755)
        inputs.append(source)
    for number, module in enumerate(kernel.modules):
        entries[f"/modules/{number:02}-{module_name(str(module))}.ko"] = file(read_module(module))
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


def _guest_folder() -> Path:
    return Path(__file__).resolve().parents[2] / GUEST_PACKAGE


def _packed(python: Path) -> tuple[Packed, bytes, bytes]:
    """What this interpreter says it needs, its zip, and INIT as it compiles it."""
    guest = _guest_folder()
    script = Path(pack.__file__)
    with tempfile.TemporaryDirectory(dir=_made("base")) as scratch:
        options = ["-I", "-S", "-E", "-B"]
        argv = [str(python), *options, str(script), str(guest.parent), scratch, INIT]
        printed = _output([*argv, *needed_modules(guest)], "the guest's modules")
        packed = msgspec.json.decode(printed, type=Packed)
        library = Path(scratch, "library.zip").read_bytes()
        return packed, library, Path(scratch, "init.pyc").read_bytes()


def _libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """Where in the guest each shared library goes that the programs need, and its file here.

    The programs' own loader lists them, by the rules that it applies when it runs them.
    """
    loaders: dict[str, Path] = {}
    found: dict[str, Path] = {}
    programs = list(programs)
    for program in programs:
        wanted = interpreter(_read(program))
        if wanted is not None:
            loaders[wanted] = Path(wanted)
    if not loaders:
        return {}
    loader = next(iter(loaders))
    for program in programs:
        found |= _listed(loader, program)
    main = Path(next((n for n in found if Path(n).name.startswith("libc.so")), loader)).parent
    targets: dict[str, Path] = {}
    for name, path in (found | loaders).items():
        target = _guest_path(Path(name), main)
        if target in targets and targets[target].resolve() != path.resolve():
            target = name  # a second one of that name: its place is in the program's own path
        targets[target] = path
    return targets


def _listed(loader: str, program: Path) -> dict[str, Path]:
    purpose = f"the libraries of {program}"
    found = parse_libraries(_output([loader, "--list", str(program)], purpose))
    if any("/glibc-hwcaps/" in path for path in found):
        # variants for this host's processor, which the guest's need not be able to run
        plain = [loader, "--glibc-hwcaps-mask", "none", "--list", str(program)]
        found = parse_libraries(_output(plain, purpose))
    return found


def parse_libraries(output: bytes) -> dict[str, Path]:
    """Path by path, from lines like "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)".

    Raises ImageError that names a library which is not found.
    """
    found = {}
    for line in os.fsdecode(output).splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if not arrow:
            continue
        if rest.startswith("not found"):
            raise ImageError(f"the shared library {name} is not installed.")
        path = rest.rsplit(" (0x", 1)[0]
        if path.startswith("/"):
            found[path] = Path(path)
    return found


def _guest_path(library: Path, main: Path) -> str:
    """Where the guest's loader finds it: as here, or beside libc if it lies somewhere private."""
    if library.parts[1] not in ("lib", "lib64", "usr", "nix"):
        library = main / library.name
    path = str(library)
    return f"/usr{path}" if path.startswith(("/lib/", "/lib64/")) else path


def _write(entries: dict[str, Entry]) -> tuple[BaseImage, int]:
    """Write the archive under its own hash; with its size."""
    size = sum(len(entry.data) for entry in entries.values())
    need_space(_made("base"), size + (16 << 20), "Building the base image")
    pieces = list(archive(entries))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    image = BaseImage(_image_path(digest.hexdigest()), digest.hexdigest())
    write_file(image.path, pieces)
    return image, image.path.stat().st_size


def _remember(
    manifest: Path, image: BaseImage, size: int, inputs: list[Path], started: int
) -> None:
    """Write the manifest, unless an input changed after `started` (ns): then build again."""
    watched = _watched(inputs)
    if all(path.stat().st_ctime_ns < started for path in watched):
        made = _Manifest(image.key, size, [_input(path) for path in watched])
        write_file(manifest, [msgspec.json.encode(made)])
    _remove_unused(manifest.parent)


def _watched(inputs: list[Path]) -> list[Path]:
    """The inputs, and the folders whose change means a new one: a module added to corral_guest."""
    return sorted({*inputs, _guest_folder(), Path(pack.__file__), Path(__file__)})


def _recall(manifest: Path) -> BaseImage | None:
    """The image made before, None when there is none, it is damaged or an input has changed."""
    try:
        known = msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
        image = _image_path(known.key)
        if image.stat().st_size != known.size:
            return None
        if any(_input(Path(entry.path)) != entry for entry in known.inputs):
            return None
    except (OSError, msgspec.DecodeError):
        return None
    return BaseImage(image, known.key)


def _remove_unused(cache: Path) -> None:
    """Remove images that no manifest names any more and that no one has just made."""
    named = set()
    for manifest in cache.glob("*.json"):
        try:
            named.add(msgspec.json.decode(manifest.read_bytes(), type=_Manifest).key)
        except (OSError, msgspec.DecodeError):
            manifest.unlink(missing_ok=True)
    for image in cache.glob("*.cpio"):
        if image.stem not in named and time.time() - image.stat().st_mtime > _UNUSED_AGE:
            image.unlink(missing_ok=True)


def _image_path(key: str) -> Path:
    return paths.cache_dir() / "base" / f"{key}.cpio"


def _input(path: Path) -> _Input:
    status = path.stat()
    return _Input(str(path), 0 if path.is_dir() else status.st_size, status.st_mtime_ns)


def _made(name: str) -> Path:
    made = paths.cache_dir() / name
    made.mkdir(mode=0o700, exist_ok=True)
    return made


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path} for the base image: {error.strerror}.") from error
    if not is_elf(data):
        raise ImageError(
            f"{path} is not a program of this machine (a script, or for another architecture).",
        )
    return data


def _output(argv: list[str], purpose: str) -> bytes:
    """What a program prints. Raises ImageError."""
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        result = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"cannot list {purpose}: {error}.") from error
    if result.returncode != 0:
        raise ImageError(
            f"cannot list {purpose}: {argv[0]} ended with status {result.returncode}.",
            detail=result.stderr.decode("utf-8", "replace").strip()[-2000:] or None,
        )
    return result.stdout
