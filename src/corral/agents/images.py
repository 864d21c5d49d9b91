"""Agent programs that corral has installed: read-only folders in the cache, each made once.

    ~/.cache/corral/agents/NAME-VERSION-HASH/    bin/PROGRAM, and what the package manager made

HASH is of all that decides what is in it. A folder appears whole or not at all (images.locks); one
whose program or list is damaged is made again. While a sandbox uses one it holds a lock on it, so
that `corral gc` leaves it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from .. import paths
from ..errors import ConfigError, ImageError
from ..images.locks import write_file
from ..spec.files import read_config
from ..spec.text import printable
from . import beneath
from .model import Recipe
from .programs import Found
from .validate import package_of, version_problem

FORMAT = 1
MANIFEST = "corral.json"
CHOSEN = "agents.json"  # in the state folder: versions that the user has asked for, by agent
_CPUS = {"x86_64": "x64", "aarch64": "arm64"}
MAX_ENTRIES = 300_000


class Wanted(Struct, frozen=True, kw_only=True):
    """A package to install. kind: npm or pypi. file: the program's in the image, relative."""

    agent: str
    program: str
    kind: str
    package: str
    version: str
    file: str
    scripts: bool
    needs: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is, whether there is one or not."""
        parts = (FORMAT, self.kind, self.package, self.version, self.file, self.scripts)
        text = msgspec.json.encode([*parts, platform.machine()])
        key = hashlib.sha256(text).hexdigest()[:12]
        return images_folder() / f"{self.agent}-{self.version}-{key}"

    @property
    def spec(self) -> str:
        """As the package manager takes it."""
        return f"{self.package}{'@' if self.kind == 'npm' else '=='}{self.version}"


class Manifest(Struct, frozen=True, kw_only=True):
    """What is in an image. size: of the program's file. entries, bytes: of all."""

    format: int
    agent: str
    package: str
    version: str
    program: str
    size: int
    entries: int
    bytes: int


def images_folder() -> Path:
    """The parent of all images."""
    return paths.cache_dir() / "agents"


def wanted(recipe: Recipe, version: str | None = None) -> Wanted:
    """What the recipe installs. version: in place of its own. Raises ConfigError."""
    install = recipe.table.install
    package = package_of(install)
    if package is None:
        raise ConfigError(
            f"{recipe.name} is in no registry that its recipe names, and there is no "
            f"{recipe.table.program} on your PATH that a sandbox sees.",
            hint=f"Install {recipe.table.program} on this machine as its makers say, below /usr, "
            "/opt or your home.",
        )
    kind, name, pinned = package
    if version is not None and (problem := version_problem(kind, version)):
        raise ConfigError(f"“{printable(version, 40)}”: {problem}")
    machine = platform.machine()
    words = {
        "arch": _CPUS.get(machine, machine),
        "cpu": machine,
        "baseline": "-baseline" if machine == "x86_64" else "",
    }
    file = install.program
    for word, value in words.items():
        file = file.replace(f"{{{word}}}", value)
    return Wanted(
        agent=recipe.name,
        program=recipe.table.program,
        kind=kind,
        package=name,
        version=version or pinned,
        file=file,
        scripts=install.scripts,
        needs=install.needs,
    )


def installed(wanted: Wanted) -> Manifest | None:
    """What is in the image, None where there is none or its program is not as it was made."""
    folder = wanted.folder
    manifest = manifest_of(folder)
    if manifest is None or manifest.format != FORMAT:
        return None
    try:
        status = (folder / manifest.program).stat()
    except OSError:
        return None
    sound = stat.S_ISREG(status.st_mode) and status.st_size == manifest.size
    return manifest if sound and status.st_mode & 0o111 else None


def is_whole(folder: Path, manifest: Manifest) -> bool:
    """Whether everything is still there, by number and size: a look at each file."""
    entries, size = measured(folder)
    return (entries, size) == (manifest.entries, manifest.bytes)


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest in an image, None where there is none that can be read."""
    try:
        content = read_config(folder / MANIFEST, follow=False)
        return None if content is None else msgspec.json.decode(content, type=Manifest)
    except (ConfigError, msgspec.MsgspecError):
        return None


def finish(folder: Path, wanted: Wanted) -> None:
    """Make what was installed in `folder` an image: its program found, all of it readable.

    What is there was written by a package: nothing of it is run, and no link is followed out.
    Raises ImageError.
    """
    target = wanted.file or f"bin/{wanted.program}"
    real = os.path.realpath(folder / target)
    root = os.path.realpath(folder)
    try:
        status = os.lstat(real)
    except OSError:
        status = None
    if status is None or not real.startswith(root + "/") or not stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"{wanted.spec} was installed, and has no program {target}.",
            hint="Its package may have changed its form: install the recipe's own version, or "
            "change install.program in a recipe of your own.",
        )
    if wanted.file:
        _link(folder, wanted, os.path.relpath(real, f"{root}/bin"))
    os.chmod(real, 0o755)  # noqa: PTH101, S103 - no link, and nothing runs that could make it one
    _open_up(folder)
    entries, size = measured(folder)
    manifest = Manifest(
        format=FORMAT,
        agent=wanted.agent,
        package=wanted.package,
        version=wanted.version,
        program=os.path.relpath(real, root),
        size=status.st_size,
        entries=entries,
        bytes=size,
    )
    write_file(folder / MANIFEST, [msgspec.json.encode(manifest)], 0o644)


def _link(folder: Path, wanted: Wanted, target: str) -> None:
    """Its program in `bin`, in place of what the package has there. Raises ImageError."""
    try:
        with beneath.opened(str(folder), ("bin",), make=True) as bin_folder:
            with suppress(FileNotFoundError):
                os.unlink(wanted.program, dir_fd=bin_folder)
            os.symlink(target, wanted.program, dir_fd=bin_folder)
    except (beneath.LinkedError, OSError) as error:
        raise ImageError(
            f"{wanted.spec} was installed, and its bin is no folder, "
            f"or bin/{wanted.program} is one.",
            hint="No version of an agent needs that: is it the package that you mean?",
        ) from error


def found_in(wanted: Wanted) -> Found:
    """The program of an image that is installed."""
    folder = str(wanted.folder)
    return Found(f"{folder}/bin/{wanted.program}", (folder,), image=True)


def measured(folder: Path) -> tuple[int, int]:
    """(entries, bytes of files) in an image, without its manifest. Raises ImageError."""
    entries = size = 0
    for path, folders, names, descriptor in os.fwalk(folder):
        entries += len(folders)
        for name in names:
            if name == MANIFEST and path == str(folder):
                continue
            entries += 1
            status = os.lstat(name, dir_fd=descriptor)
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if entries > MAX_ENTRIES:
            raise ImageError(f"{folder} has more than {MAX_ENTRIES} files: no agent's program.")
    return entries, size


def _open_up(folder: Path) -> None:
    """Readable for the user that a guest's server runs as, whatever the user's umask is."""
    for _path, folders, names, descriptor in os.fwalk(folder):
        for name in (*folders, *names):
            status = os.lstat(name, dir_fd=descriptor)
            if stat.S_ISDIR(status.st_mode):
                os.chmod(name, 0o755, dir_fd=descriptor)  # noqa: S103
            elif stat.S_ISREG(status.st_mode):
                mode = 0o755 if status.st_mode & 0o100 else 0o644
                os.chmod(name, mode, dir_fd=descriptor)


# Which version


def chosen() -> dict[str, str]:
    """The versions that the user has asked for, by agent. Raises ConfigError."""
    path = paths.state_dir() / CHOSEN
    content = read_config(path, follow=False)
    if content is None:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{path} is damaged.", hint="Remove it: the recipes' own versions hold again."
        ) from error


def choose(agent: str, version: str | None) -> None:
    """From now on this version of an agent; None: whatever its recipe says. Call under a lock."""
    versions = chosen()
    if version is None:
        versions.pop(agent, None)
    else:
        versions[agent] = version
    write_file(paths.state_dir() / CHOSEN, [msgspec.json.encode(versions)])


# In use, and not


@contextmanager
def held(folders: Iterable[str]) -> Iterator[None]:
    """Keep those of these folders that are images while the block lasts."""
    own = str(images_folder()) + "/"
    descriptors: list[int] = []
    try:
        for folder in folders:
            if folder.startswith(own):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                descriptors.append(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def prune(*, dry_run: bool, keep: Collection[str] = ()) -> int:
    """Remove the images that no sandbox uses; returns how many bytes that frees.

    keep: folders that stay, as kept sandboxes that are stopped will use them.
    """
    freed = 0
    folder = images_folder()
    for image in sorted(folder.iterdir()) if folder.is_dir() else ():
        if image.is_symlink() or not image.is_dir() or str(image) in keep:
            continue
        descriptor = os.open(image, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # a sandbox uses it
        else:
            freed += sum(file.lstat().st_blocks * 512 for file in image.rglob("*"))
            if not dry_run:
                # Renamed first, so that nobody takes half of one for an image.
                gone = image.with_name(f".{image.name}.gone")
                with suppress(OSError):
                    image.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(descriptor)
    return freed
