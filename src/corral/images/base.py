"""The guest's base image: a cpio archive made from this host's own files.

    /usr/bin/python3          the interpreter that runs corral itself
    /usr/lib/python3XY.zip    corral_guest and the standard modules it needs, byte-compiled
    /usr/lib/python3.XY       extension modules, and os.py: by which the interpreter finds /usr
    /usr/bin/bwrap            jails
    /usr/lib/..., /usr/lib64  the shared libraries these need, and their loader
    /modules/NN-name.ko       kernel modules, in load order
    /modules-later/NN-name.ko those that the supervisor loads when they are wanted
    /corral/init.pyc          what the kernel starts (contents.INIT)

Boot it with `rdinit=/usr/bin/python3 -- -I -S -E /corral/init.pyc`. Not compressed: under TCG,
decompression costs more than reading. The same input files give the same bytes and the same key.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import paths
from ..events import Phase, Report
from .locks import locked, need_space, remove_leftovers, write_file
from .model import Kernel
from .watched import FileState, state

if TYPE_CHECKING:
    from .cpio import Entry

# contents and cpio are imported when an image is built: a warm start needs none of it

_FORMAT = 1  # raise it when the same inputs shall give another image
_UNUSED_AGE = 86400.0  # seconds after which an image that no manifest names is removed
_CLOCK_STEP = 20_000_000  # ns; file times come from a clock that advances by up to 10 ms


class BaseImage(msgspec.Struct, frozen=True):
    """path: the archive. key: the SHA-256 of its content, in hexadecimal digits."""

    path: Path
    key: str


class _Manifest(msgspec.Struct, frozen=True):
    """Which image was made, and from which files as they were."""

    key: str
    size: int
    inputs: list[FileState]


def ensure_base_image(kernel: Kernel, python: Path, bwrap: Path, report: Report) -> BaseImage:
    """The base image for this kernel, interpreter and bwrap, built if an input has changed.

    python: the real base interpreter, not a venv's link. Raises ImageError.
    """
    question = [_FORMAT, str(python), str(bwrap), str(_guest_folder())]
    question += [str(module) for module in (*kernel.modules, "later", *kernel.later)]
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
        from .contents import collect

        started = time.time_ns() - _CLOCK_STEP
        entries, inputs = collect(kernel, python, bwrap, _guest_folder())
        image, size = _write(entries)
        _remember(manifest, image, size, inputs, started)
        return image


def _write(entries: Mapping[str, Entry]) -> tuple[BaseImage, int]:
    """Write the archive under its own hash; with its size."""
    from .cpio import archive

    size = sum(len(entry.data) for entry in entries.values())
    need_space(_folder(), size + (16 << 20), "Building the base image")
    pieces = list(archive(entries))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    image = BaseImage(_image_path(digest.hexdigest()), digest.hexdigest())
    remove_leftovers(image.path)
    write_file(image.path, pieces)
    return image, image.path.stat().st_size


def _remember(
    manifest: Path, image: BaseImage, size: int, inputs: list[Path], started: int
) -> None:
    """Write the manifest, unless an input changed after `started` (ns): then build again."""
    watched = _watched(inputs)
    if all(path.stat().st_ctime_ns < started for path in watched):
        made = _Manifest(image.key, size, [state(path) for path in watched])
        write_file(manifest, [msgspec.json.encode(made)])
    _remove_unused(manifest.parent)


def _watched(inputs: list[Path]) -> list[Path]:
    """The inputs, the code that makes the image, and what a new guest module would change."""
    own = Path(__file__).parent
    return sorted({*inputs, _guest_folder(), *_guest_folder().glob("*.py"), *own.glob("*.py")})


def _recall(manifest: Path) -> BaseImage | None:
    """The image made before, None when there is none, it is damaged or an input has changed."""
    try:
        known = msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
        image = _image_path(known.key)
        if image.stat().st_size != known.size:
            return None
        if any(state(Path(entry.path)) != entry for entry in known.inputs):
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
    return _folder() / f"{key}.cpio"


def _folder() -> Path:
    made = paths.cache_dir() / "base"
    made.mkdir(mode=0o700, exist_ok=True)
    return made


def _guest_folder() -> Path:
    """Where corral_guest lies: beside corral, in a clone as when installed."""
    return Path(__file__).resolve().parents[2] / "corral_guest"
