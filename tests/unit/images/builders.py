"""Small, real ELF files, kernel images and module trees, made for the tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

PVH_NOTE = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x1000000)


def elf(sections: dict[str, bytes] | None = None, notes: bytes = b"", tail: bytes = b"") -> bytes:
    """A 64-bit ELF file with these sections, one PT_NOTE segment, and a tail that is not loaded."""
    sections = sections or {}
    names = b"\0"
    offsets = {}
    for name in (*sections, ".shstrtab"):
        offsets[name] = len(names)
        names += name.encode() + b"\0"
    body = notes
    note_offset = 64 + 56
    entries = [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for name, content in {**sections, ".shstrtab": names}.items():
        where = note_offset + len(body)
        entries.append(
            struct.pack("<IIQQQQIIQQ", offsets[name], 1, 0, 0, where, len(content), 0, 0, 1, 0)
        )
        body += content
    body += tail
    table = note_offset + len(body)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack(
            "<HHIQQQIHHHHHH",
            2,
            62,
            1,
            0,
            64,
            table,
            0,
            64,
            56,
            1,
            64,
            len(entries),
            len(entries) - 1,
        )
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, note_offset, 0, 0, len(notes), len(notes), 4)
    return header + segment + body + b"".join(entries)


def module(*depends: str) -> bytes:
    """A kernel module that says what it depends on."""
    text = f"license=GPL\0depends={','.join(depends)}\0name=x\0"
    return elf({".modinfo": text.encode()})


def bzimage(packed: bytes, size: int, version: str = "6.1.0-test") -> bytes:
    """A kernel image with this compressed payload; size: of what is in it, as its end says."""
    payload = packed + struct.pack("<I", size)
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    text = version.encode() + b" (someone@somewhere) #1\0"
    image[0x300 : 0x300 + len(text)] = text
    struct.pack_into("<H", image, 0x20E, 0x100)
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image) + bytes(64) + payload


def kernel(**options: str) -> bytes:
    """A kernel image that QEMU could boot by PVH, packed with gzip."""
    content = elf(notes=PVH_NOTE, tail=b"code" * 64)
    # gzip ends in the size by itself (RFC 1952), which the kernel's build relies on
    packed = gzip.compress(content, mtime=0)
    return bzimage(packed[:-4], len(content), **options)


def module_tree(root: Path, release: str, modules: dict[str, bytes], builtin: str = "") -> Path:
    """A lib/modules/RELEASE below root with these modules by their path in it."""
    folder = root / "lib/modules" / release
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text(builtin)
    for path, content in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
