"""A sandbox's disk: how it is made and how it is plugged in. Values in, values out.

It is a qcow2 file with an ext4 file system in it. mke2fs makes that on a sparse descriptor, and
QEMU, as a machine of nothing, copies what is not empty into a new qcow2 file. Both are confined
like every helper, and get descriptors in place of names.

The guest writes what is in the file system, so nothing on the host ever mounts or checks it. The
qcow2 format is QEMU's alone; still no name in its header is followed: format and backing file are
said, and `examine` looks at the header before QEMU does. Format: QEMU's docs/interop/qcow2.rst.
"""

from __future__ import annotations

import struct

from ...host import Facts
from ...plan.model import NOBODY
from ...proc.bwrap import confined
from .render import DENY, QMP_FD, programs

SERIAL = "corral-disk"  # corral_guest.disk
RAW_FD, NEW_FD = 11, 12  # descriptors of mke2fs and of the QEMU that copies
HEADER_BYTES = 104  # of version 3
NODE, FILE_NODE, FDSET = "disk", "disk-file", 1
_BLOCK = 4096  # corral_guest.disk
_MAGIC, _VERSION = b"QFI\xfb", 3
_RAW_SET, _NEW_SET = 1, 2


def formatter(facts: Facts) -> tuple[str, ...]:
    """argv of mke2fs, which makes a file system on RAW_FD. Tables are filled in later, if ever."""
    assert facts.mke2fs is not None and facts.bwrap is not None
    extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    command = (
        *facts.mke2fs.argv,
        *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-E", extended),
        f"/proc/self/fd/{RAW_FD}",
    )
    return confined(
        facts.bwrap.argv, programs(facts.mke2fs), command, uid=NOBODY, root=facts.user.uid == 0
    )


def copier(facts: Facts) -> tuple[str, ...]:
    """argv of the QEMU that makes a qcow2 file on NEW_FD; without a machine, told by QMP."""
    assert facts.qemu is not None and facts.bwrap is not None
    command = (
        *facts.qemu.argv,
        *("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-sandbox", DENY),
        *("-add-fd", f"fd={RAW_FD},set={_RAW_SET}", "-add-fd", f"fd={NEW_FD},set={_NEW_SET}"),
        *("-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control"),
    )
    return confined(
        facts.bwrap.argv, programs(facts.qemu), command, uid=NOBODY, root=facts.user.uid == 0
    )


def copying(size: int) -> tuple[tuple[str, dict[str, object]], ...]:
    """What the copier is told, in order; with a job-id it is a job."""
    raw_file: dict[str, object] = {
        "driver": "file",
        "node-name": "raw-file",
        "filename": f"/dev/fdset/{_RAW_SET}",
    }
    new_file = {"driver": "file", "node-name": "new-file", "filename": f"/dev/fdset/{_NEW_SET}"}
    made = {"driver": "qcow2", "file": "new-file", "size": size}
    return (
        ("blockdev-add", raw_file),
        ("blockdev-add", {"driver": "raw", "node-name": "raw", "file": "raw-file"}),
        ("blockdev-add", {**new_file, "discard": "unmap"}),
        ("blockdev-create", {"job-id": "make", "options": made}),
        ("blockdev-add", {"driver": "qcow2", "node-name": "new", "file": "new-file",
                          "backing": None, "discard": "unmap"}),
        ("blockdev-backup", {"job-id": "copy", "device": "raw", "target": "new", "sync": "full",
                             "auto-dismiss": False}),
    )  # fmt: skip


def nodes() -> tuple[dict[str, object], ...]:
    """The block nodes of a disk whose descriptor QEMU has in FDSET.

    What the guest discards or fills with zeroes is freed in the file.
    """
    return (
        {"driver": "file", "node-name": FILE_NODE, "filename": f"/dev/fdset/{FDSET}",
         "locking": "on", "discard": "unmap"},
        {"driver": "qcow2", "node-name": NODE, "file": FILE_NODE, "backing": None,
         "discard": "unmap", "detect-zeroes": "unmap"},
    )  # fmt: skip


def device(port: int) -> dict[str, object]:
    """The device. A full or broken disk of the host is the guest's error, and the guest lives."""
    return {
        "driver": "virtio-blk-pci",
        "id": f"{NODE}-device",
        "drive": NODE,
        "bus": f"port{port}",
        "serial": SERIAL,
        "werror": "report",
        "rerror": "report",
    }


def examine(header: bytes) -> int | None:
    """The size of the disk in bytes, by the head of its file; None when corral did not make it.

    A backing file, a data file elsewhere, encryption: whoever wrote that, no disk of ours has it.
    """
    if len(header) < HEADER_BYTES or header[:4] != _MAGIC:
        return None
    version, backing = struct.unpack_from(">IQ", header, 4)
    (size,) = struct.unpack_from(">Q", header, 24)
    (encryption,) = struct.unpack_from(">I", header, 32)
    (incompatible,) = struct.unpack_from(">Q", header, 72)
    plain = version == _VERSION and not (backing or encryption or incompatible)
    return int(size) if plain and size else None
