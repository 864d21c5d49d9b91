"""Where templates are kept: a folder each, below the cache.

    templates/FORMAT/<key>/memory         the machine's memory, sparse
                           state          everything else of it, as QEMU migrates it
                           template.json  what shaped it, its files as they were; touched by a use
    templates/FORMAT/<key>.broken         it could not be restored: boot for a while instead

The key is a hash of everything that shaped the machine, so a template is never changed, only not
asked for any more. It holds a booted kernel and corral's supervisor and nothing of any user's, and
is believed only while its files are exactly those that were written: inode, size and times, which
no copy, no truncation and no other user's file has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .. import paths
from ..backends.qemu import render
from ..events import Phase, Report
from ..host import Facts
from ..images import BaseImage, Kernel
from ..images.locks import cache_failure, locked, new_folder, write_file
from ..images.watched import FileState, state
from ..plan import Plan

FORMAT = 2  # raise it when what is saved, or how, changes its meaning
MAX_BYTES = 2 << 30  # of all templates; one takes 70 to 150 MB
BROKEN_SECONDS = 3600.0  # so long a new template that could not be restored is not made again
_LEFT_SECONDS = 24 * 3600.0  # what is unfinished for so long, nobody makes any more
NEW_SECONDS = 600.0
_MANIFEST, _MEMORY, _STATE = "template.json", "memory", "state"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shaped a machine. arguments: QEMU's. processor: the host's, under KVM.

    jails: those that are made in it.
    """

    format: int
    arguments: tuple[str, ...]
    qemu: tuple[str, ...]
    qemu_version: str
    qemu_files: tuple[FileState, ...]
    kernel: FileState
    kernel_release: str
    base: str
    jails: tuple[dict[str, object], ...]
    processor: str

    @property
    def key(self) -> str:
        """The name of its template."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


class _Identity(msgspec.Struct, frozen=True, array_like=True):
    """A file that was not changed or replaced since (stat(2)). Times in ns."""

    inode: int
    owner: int
    mode: int
    size: int
    modified: int
    changed: int


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    shape: Shape
    memory: _Identity
    state: _Identity
    summary: str
    created: float


@dataclass(frozen=True, slots=True)
class Template:
    """A template that can be restored: its two files, open. Close it.

    placeholders: what programs in it hold in place of secrets, in a checkpoint of a sandbox.
    """

    key: str
    memory: int
    state: int
    placeholders: Mapping[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Close the files."""
        os.close(self.memory)
        os.close(self.state)


@dataclass(frozen=True, slots=True)
class Entry:
    """A template in the store. size: bytes on the disk. created, used: seconds since the epoch.

    usable: its files are those that were written.
    """

    key: str
    summary: str
    size: int
    created: float
    used: float
    usable: bool


def shape_of(plan: Plan, facts: Facts, kernel: Kernel, base: BaseImage) -> Shape:
    """What shapes the machine of a plan."""
    assert facts.qemu is not None
    binaries = tuple(Path(word) for word in facts.qemu.argv if word.startswith("/"))
    return Shape(
        format=FORMAT,
        arguments=tuple(render.machine_arguments(plan)),
        qemu=facts.qemu.argv,
        qemu_version=facts.qemu.version,
        qemu_files=tuple(state(file) for file in binaries),
        kernel=state(kernel.image),
        kernel_release=kernel.release,
        base=base.key,
        jails=tuple(agent.jail for agent in plan.agents),
        processor=_processor() if plan.machine.accel == "kvm" else "",
    )


def _processor() -> str:
    """The first processor, of which a KVM guest sees everything (proc_cpuinfo(5))."""
    names = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "Features")
    with open("/proc/cpuinfo") as file:
        lines = [line for line in iter(file.readline, "\n") if line.startswith(names)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find(shape: Shape) -> Template | None:
    """The template of this shape, None when there is none that can be believed."""
    folder = _root() / shape.key
    manifest = _manifest(folder)
    if manifest is None or manifest.shape != shape:
        return None
    opened: list[int] = []
    try:
        for name, wanted in ((_MEMORY, manifest.memory), (_STATE, manifest.state)):
            opened.append(os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            if _identity(opened[-1]) != wanted:
                raise FileNotFoundError(name)
        with contextlib.suppress(OSError):  # a cache that cannot be written can still be read
            os.utime(folder / _MANIFEST)
    except OSError:
        for fd in opened:
            os.close(fd)
        return None
    memory, state = opened
    return Template(shape.key, memory, state)


def is_broken(key: str) -> bool:
    """Whether a template of this key was made lately and could not be restored."""
    try:
        return time.time() - _broken(key).stat().st_mtime < BROKEN_SECONDS
    except OSError:
        return False


def mark_broken(key: str) -> None:
    """It could not be restored: remove it. One that was just made is not made again for a while.

    One that had worked before failed for a reason of the moment, as a busy machine is.
    """
    manifest = _manifest(_root() / key)
    if manifest is not None and time.time() - manifest.created < NEW_SECONDS:
        write_file(_broken(key), [b""])
    _remove(_root() / key)


@contextlib.contextmanager
def saving(shape: Shape, summary: str, report: Report) -> Iterator[tuple[int, int] | None]:
    """Make the template of this shape: descriptors to write its memory and its state to.

    None when another process has made it meanwhile. It is there, whole, when the block ends well.
    Raises ImageError when the cache cannot be written.
    """

    def waiting() -> None:
        report(Phase(name="template", message="waiting for another corral to save the machine"))

    folder = _root() / shape.key
    with locked(f"template-{shape.key}", waiting):
        found = find(shape)
        if found is not None:
            found.close()
            yield None
            return
        with new_folder(folder) as staging:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            memory = os.open(staging / _MEMORY, flags, 0o600)
            machine_state = os.open(staging / _STATE, flags, 0o600)
            try:
                yield memory, machine_state
                os.fsync(machine_state)
                manifest = _Manifest(
                    shape=shape,
                    memory=_identity(memory),
                    state=_identity(machine_state),
                    summary=summary,
                    created=time.time(),
                )
            finally:
                os.close(memory)
                os.close(machine_state)
            write_file(staging / _MANIFEST, [msgspec.json.encode(manifest)])
        _broken(shape.key).unlink(missing_ok=True)
    prune(MAX_BYTES, keep=shape.key)


def entries() -> list[Entry]:
    """The templates in the store, the one used last first."""
    found = []
    for folder in _root().iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # another process removes it just now
                found.append(_entry(folder))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def _entry(folder: Path) -> Entry:
    manifest = _manifest(folder)
    size = sum(file.lstat().st_blocks * 512 for file in folder.iterdir())
    if manifest is None:
        return Entry(folder.name, "damaged", size, 0.0, 0.0, usable=False)
    used = (folder / _MANIFEST).stat().st_mtime
    usable = manifest.shape.key == folder.name and all(
        _matches(folder / name, wanted)
        for name, wanted in ((_MEMORY, manifest.memory), (_STATE, manifest.state))
    )
    return Entry(folder.name, manifest.summary, size, manifest.created, used, usable=usable)


def prune(limit: int, *, keep: str | None = None, dry_run: bool = False) -> list[Entry]:
    """Remove what is unusable, then the least recently used until `limit` bytes are left.

    keep: the key of one that stays. Machines that are being restored have its files open and are
    not disturbed. Returns what was removed.
    """
    removed, total = [], 0
    for entry in entries():
        if entry.key != keep and (not entry.usable or total + entry.size > limit):
            removed.append(entry)
            if not dry_run:
                _remove(_root() / entry.key)
        else:
            total += entry.size
    if not dry_run:
        for left in _root().glob(".*"):  # by a process that was killed
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        for marker in _root().glob("*.broken"):
            if limit == 0 or not is_broken(marker.stem):
                marker.unlink(missing_ok=True)
    return removed


def _root() -> Path:
    folder = paths.cache_dir() / "templates" / str(FORMAT)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cache_failure(error) from error
    return folder


def _broken(key: str) -> Path:
    return _root() / f"{key}.broken"


def _remove(folder: Path) -> None:
    """Out of the way under its name first, so that nobody finds half of it.

    What else begins like it is not touched: another process may just be making the same one.
    """
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # another process removes it as well
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _manifest(folder: Path) -> _Manifest | None:
    try:
        return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _identity(fd: int) -> _Identity:
    found = os.fstat(fd)
    return _Identity(
        found.st_ino,
        found.st_uid,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _matches(file: Path, wanted: _Identity) -> bool:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _identity(fd) == wanted
    finally:
        os.close(fd)
