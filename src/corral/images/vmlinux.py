"""Kernel images: what version they are, and the ELF kernel inside a bzImage.

Source: Documentation/arch/x86/boot.rst of Linux ("The Real-Mode Kernel Header").
"""

from __future__ import annotations

import re
import struct

from ..errors import ImageError
from .compression import decompress
from .elf import boots_by_pvh, is_elf

_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_PROTOCOL = 0x206
_VERSION_POINTER = 0x20E
_PAYLOAD_OFFSET = 0x248  # since protocol 2.08
_BANNER = re.compile(rb"Linux version (\S{1,64}) \(")


def is_bzimage(data: bytes) -> bool:
    """Whether the data starts as an x86 kernel image does."""
    return data[_MAGIC : _MAGIC + 4] == b"HdrS"


def release(data: bytes) -> str | None:
    """The release (`uname -r`) of a bzImage or an ELF kernel, or None when it does not say."""
    if is_bzimage(data):
        (pointer,) = struct.unpack_from("<H", data, _VERSION_POINTER)
        words = data[pointer + 0x200 : pointer + 0x300].split(b"\0")[0].split()
        return words[0].decode("ascii", "replace") if pointer and words else None
    found = _BANNER.search(data)
    return found[1].decode("ascii", "replace") if found else None


def unpack(data: bytes) -> bytes | None:
    """The ELF kernel inside a bzImage, when QEMU can boot it (by PVH); None when it cannot.

    None too when the compression is not one that corral knows. Raises ImageError when damaged.
    A payload ends in its unpacked size as four bytes, whatever its compression.
    """
    if not is_bzimage(data):
        raise ImageError("not an x86 kernel image (it has no boot header).")
    (protocol,) = struct.unpack_from("<H", data, _PROTOCOL)
    if protocol < 0x208:
        return None
    setup_sectors = data[_SETUP_SECTORS] or 4
    offset, length = struct.unpack_from("<II", data, _PAYLOAD_OFFSET)
    start = (setup_sectors + 1) * 512 + offset
    payload = data[start : start + length]
    if len(payload) < length:
        raise ImageError("the kernel image is cut short.")
    kernel = payload if is_elf(payload) else decompress(payload)
    if kernel is None or not is_elf(kernel):
        return None
    if kernel is not payload and len(kernel) != int.from_bytes(payload[-4:], "little"):
        raise ImageError("the kernel image is damaged: its payload has not the size it says.")
    return kernel if boots_by_pvh(kernel) else None
