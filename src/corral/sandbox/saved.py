"""A checkpoint on disk: one folder, whole or not there, believed only as it was written.

    memory           the machine's memory, sparse
    state            processors and devices, as QEMU migrates them, with what file servers knew
    disk.qcow2       the disk, where the sandbox has one
    checkpoint.json  what shaped the machine, and digests of the rest; written last

It goes on only in a machine of the same shape: the same QEMU, kernel, base image and devices. What
is in it is the user's, programs' secrets and all: the folder is private.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import CheckpointError
from ..images.locks import write_file
from ..images.watched import FileState
from ..plan import Plan
from ..templates import Shape, Template, shape_of
from ..templates.memory import data_of
from .parts import Parts

FORMAT = 1  # raise it when what is saved, or how, changes its meaning
MEMORY, STATE, DISK = "memory", "state", "disk.qcow2"
_MANIFEST = "checkpoint.json"
_BLOCK = 1 << 20
_AGAIN = "Make a new one: corral checkpoint NAME TAG."


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is saved, and what it may go on in. created: seconds since 1970.

    parts: the folders that are in the guest, by where they are there. digests: SHA-256 of each
    file's data, by name. placeholders: what its programs hold in place of secrets.
    """

    format: int
    created: float
    name: str
    shape: Shape
    parts: tuple[str, ...]
    digests: dict[str, str]
    placeholders: dict[str, str] = {}


def describe(
    folder: Path,
    name: str,
    created: float,
    plan: Plan,
    parts: Parts,
    placeholders: Mapping[str, str],
) -> None:
    """Write the manifest of what was saved in `folder`, and have it all on the disk.

    placeholders: those that its programs hold. Raises OSError.
    """
    digests = {}
    for file in (MEMORY, STATE, DISK):
        if (folder / file).exists():
            fd = os.open(folder / file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                digests[file] = _digest(fd)
            finally:
                os.close(fd)
    manifest = Manifest(
        format=FORMAT,
        created=created,
        name=name,
        shape=_shape(plan, parts),
        parts=_places(plan),
        digests=digests,
        placeholders=dict(placeholders),
    )
    write_file(folder / _MANIFEST, [msgspec.json.encode(manifest)], 0o600)


def read(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint; None when there is none that can be understood."""
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    return manifest if manifest.format == FORMAT else None


@dataclass(frozen=True)
class Opened:
    """A checkpoint that is as it was written. disk: a descriptor of its disk, where it has one."""

    template: Template
    disk: int | None


@contextmanager
def opened(folder: Path, plan: Plan, parts: Parts) -> Iterator[Opened]:
    """The checkpoint in `folder`, to be restored as the machine of this plan.

    Every file of it is read, to be compared with its digest. Raises CheckpointError when it is
    damaged, or of another machine.
    """
    manifest = read(folder)
    if manifest is None:
        raise CheckpointError(
            f"the checkpoint in {folder} is damaged, or of another version of corral.", hint=_AGAIN
        )
    _check_shape(manifest, plan, parts)
    needed = {MEMORY, STATE, *((DISK,) if plan.disk else ())}
    if not needed <= manifest.digests.keys() <= {MEMORY, STATE, DISK}:
        raise _damaged(folder)
    with ExitStack() as stack:
        files: dict[str, int] = {}
        try:
            for name, digest in manifest.digests.items():
                fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, fd)
                if _digest(fd) != digest:
                    raise _damaged(folder)
                os.lseek(fd, 0, os.SEEK_SET)
                files[name] = fd
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint in {folder} cannot be read: {error.strerror}.", hint=_AGAIN
            ) from error
        memory, state = files[MEMORY], files[STATE]
        template = Template(folder.name, memory, state, manifest.placeholders)
        yield Opened(template, files[DISK] if plan.disk else None)


def _damaged(folder: Path) -> CheckpointError:
    return CheckpointError(f"the checkpoint in {folder} is damaged.", hint=_AGAIN)


def _check_shape(manifest: Manifest, plan: Plan, parts: Parts) -> None:
    now = _shape(plan, parts)
    if manifest.parts != _places(plan):
        raise CheckpointError("the checkpoint was made with other folders.", hint=_AGAIN)
    if manifest.shape != now:
        changed = [
            name.replace("_", " ")
            for name in Shape.__struct_fields__
            if getattr(manifest.shape, name) != getattr(now, name)
        ]
        raise CheckpointError(
            f"the checkpoint was made by another machine ({', '.join(changed)} changed), and "
            "cannot go on in this one.",
            hint=_AGAIN,
        )


def _shape(plan: Plan, parts: Parts) -> Shape:
    """The machine's, without what is other when the cache was cleared and filled again."""
    shape = shape_of(plan, parts.facts, parts.kernel, parts.base)
    kernel = FileState("", shape.kernel.size, 0)
    return msgspec.structs.replace(shape, qemu=(), qemu_files=(), kernel=kernel)


def _places(plan: Plan) -> tuple[str, ...]:
    """Where the agents' folders are in the guest."""
    found: list[str] = []
    for agent in plan.agents:
        listed = agent.setup["parts"]
        assert isinstance(listed, list)
        found += [f"{agent.number}:{path}" for path in listed]
    return tuple(found)


def _digest(fd: int) -> str:
    """Of what a file holds, whichever zeros of it are holes just now."""
    found = hashlib.sha256()
    size = os.fstat(fd).st_size
    found.update(size.to_bytes(8, "big"))
    looked = -1
    for start, end in data_of(fd, size):
        for block in range(max(start // _BLOCK, looked + 1), -(-end // _BLOCK)):
            looked = block
            data = os.pread(fd, _BLOCK, block * _BLOCK)
            if data.count(0) != len(data):
                found.update(block.to_bytes(8, "big"))
                found.update(data)
    return found.hexdigest()
