"""The disk of a long-lived sandbox: it keeps what programs write to the system.

The host has made the file system (ext4) once and never looks at it again: what is on it is the
guest's own. A disk that has grown since is filled here, too.
"""

from __future__ import annotations

import fcntl
import os
import struct

from . import boot, linux

SERIAL = "corral-disk"  # corral.backends.qemu.disk
MODULES = "/modules-later"  # corral.images.base
MOUNTED_AT = "/disk"
BLOCK = 4096  # bytes of ext4's blocks, as the host asks mke2fs for
_EXT4_IOC_RESIZE_FS = 0x40086610  # fs/ext4/ext4.h: _IOW('f', 16, __u64)
_SECTOR = 512  # of /sys/block/*/size, whatever the device's own are
_TIMEOUT = 20.0


def layers(events: boot.DeviceEvents, number: int) -> str:
    """The folder on the disk for agent `number`'s layers; mounts the disk at first use.

    Raises OSError when there is none, or none that can be used.
    """
    if not os.path.ismount(MOUNTED_AT):
        mount(events)
    folder = f"{MOUNTED_AT}/agent-{number}"
    os.makedirs(folder, 0o700, exist_ok=True)
    return folder


def mount(events: boot.DeviceEvents) -> None:
    """Mount the disk, and let its file system have all of it."""
    boot.load_modules(MODULES)
    found: list[str] = []
    events.retry(lambda: found.append(device()), _TIMEOUT)
    name = found[0]
    os.makedirs(MOUNTED_AT, 0o700, exist_ok=True)
    flags = linux.MS_NOSUID | linux.MS_NODEV
    try:
        # discard: what is deleted here is freed in the host's file.
        linux.mount(f"/dev/{name}", MOUNTED_AT, "ext4", flags, "discard")
    except OSError as error:
        raise OSError(error.errno, f"the disk cannot be mounted: {error.strerror}") from error
    grow(int(boot.read(f"/sys/block/{name}/size")) * _SECTOR)


def device(folder: str = "/sys/block") -> str:
    """The name of the disk's device. Raises FileNotFoundError while it is not there."""
    for name in sorted(os.listdir(folder)):
        try:
            if boot.read(f"{folder}/{name}/serial").strip() == SERIAL:
                return name
        except FileNotFoundError:
            continue  # no virtio disk
    raise FileNotFoundError(2, "there is no disk")


def number() -> str:
    """The disk's device number, as "254:0". Raises OSError when there is no disk."""
    return boot.read(f"/sys/block/{device()}/dev").strip()


def grow(size: int) -> None:
    """Have the mounted file system fill a device of `size` bytes; the same size is no change."""
    fd = os.open(MOUNTED_AT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _EXT4_IOC_RESIZE_FS, struct.pack("Q", size // BLOCK))
    finally:
        os.close(fd)
