"""The little of ELF that images need: sections, segments and notes of 64-bit little-endian files.

Source of the layout: elf(5). Every function takes the bytes of a file and does no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ImageError

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_PT_LOAD, _PT_INTERP, _PT_NOTE = 1, 3, 4
_SHT_NOBITS = 8
_XEN_PHYS32_ENTRY = 18  # xen/include/public/elfnote.h: where PVH boot enters the kernel


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    size: int
    alignment: int


def is_elf(data: bytes) -> bool:
    """Whether the data starts as a 64-bit little-endian ELF file does."""
    return data[:6] == b"\x7fELF\x02\x01" and len(data) >= _HEADER.size


def section(data: bytes, wanted: str) -> bytes | None:
    """The content of the section with this name, or None. Raises ImageError if damaged."""
    header = _header(data)
    table, entry_size, count, names_index = header[5], header[10], header[11], header[12]
    if not table or names_index >= count:
        return None
    headers = [_unpack(_SECTION, data, table + n * entry_size) for n in range(count)]
    names = _part(data, headers[names_index][4], headers[names_index][5])
    for fields in headers:
        end = names.find(b"\0", fields[0])
        if names[fields[0] : end] == wanted.encode() and fields[1] != _SHT_NOBITS:
            return _part(data, fields[4], fields[5])
    return None


def interpreter(data: bytes) -> str | None:
    """The dynamic loader that the program asks for, or None for a static one or a library."""
    for segment in _segments(data):
        if segment.kind == _PT_INTERP:
            return (
                _part(data, segment.offset, segment.size).rstrip(b"\0").decode("utf-8", "replace")
            )
    return None


def boots_by_pvh(data: bytes) -> bool:
    """Whether this kernel has the note by which QEMU can start it uncompressed."""
    for segment in _segments(data):
        if segment.kind == _PT_NOTE:
            notes = _notes(_part(data, segment.offset, segment.size), segment.alignment)
            if (b"Xen\0", _XEN_PHYS32_ENTRY) in notes:
                return True
    return False


def loadable(data: bytes) -> bytes:
    """The file without what is never loaded (symbols, debug information, section table).

    The kernel and the dynamic loader read segments only; leaving the rest out halves libpython.
    """
    segments = _segments(data)
    kept = max((s.offset + s.size for s in segments), default=0)
    header = _header(data)
    kept = max(kept, header[4] + header[8] * header[9], _HEADER.size)
    stripped = bytearray(data[:kept])
    struct.pack_into("<Q", stripped, 40, 0)  # e_shoff
    struct.pack_into("<HH", stripped, 60, 0, 0)  # e_shnum, e_shstrndx
    return bytes(stripped)


def _header(data: bytes) -> tuple[int, ...]:
    if not is_elf(data):
        raise ImageError("not a 64-bit little-endian ELF file.")
    return _HEADER.unpack_from(data)


def _segments(data: bytes) -> list[_Segment]:
    header = _header(data)
    table, entry_size, count = header[4], header[8], header[9]
    found = []
    for number in range(count):
        fields = _unpack(_SEGMENT, data, table + number * entry_size)
        found.append(_Segment(fields[0], fields[2], fields[5], fields[7]))
    return found


def _notes(data: bytes, alignment: int) -> Iterator[tuple[bytes, int]]:
    step = alignment if alignment in (4, 8) else 4
    position = 0
    while position + _NOTE.size <= len(data):
        name_size, content_size, kind = _NOTE.unpack_from(data, position)
        start = position + _NOTE.size
        yield data[start : start + name_size], kind
        content = start + -(-name_size // step) * step
        position = content + -(-content_size // step) * step


def _unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[int, ...]:
    if offset + layout.size > len(data):
        raise ImageError("the ELF file is cut short.")
    return layout.unpack_from(data, offset)


def _part(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ImageError("the ELF file is cut short.")
    return data[offset : offset + size]
