"""The compressions of kernels and modules: gzip, xz, lzma, bzip2, zstd, lz4 (both framings)."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

from ..errors import ImageError

MAX_SIZE = 1 << 30  # bytes; larger than any kernel, so that damaged data cannot fill the memory

_LZ4_LEGACY_BLOCK = 8 << 20  # lz4_Frame_format.md, "Legacy frame": the size of a block, unpacked


def decompress(data: bytes) -> bytes | None:
    """The content of `data`, whose compression is told by its first bytes; None if unknown.

    What follows the compressed stream is ignored (a kernel's payload ends in its size). Raises
    ImageError when the data is damaged, ends early, or unpacks to more than MAX_SIZE.
    """
    try:
        return _decompress(data)
    except (OSError, EOFError, ValueError, RuntimeError, lzma.LZMAError, zlib.error) as error:
        raise ImageError(f"damaged compressed data: {error}.") from error


def _decompress(data: bytes) -> bytes | None:
    if data.startswith(b"\x1f\x8b"):
        gzip = zlib.decompressobj(wbits=31)
        return _whole(gzip.decompress(data, MAX_SIZE), gzip.eof)
    if data.startswith(b"\xfd7zXZ\0") or data.startswith(b"\x5d\0\0"):
        xz = lzma.LZMADecompressor(memlimit=MAX_SIZE)
        content = xz.decompress(data, MAX_SIZE)
        return _whole(content, xz.eof or data.startswith(b"\x5d"))
    if data.startswith(b"BZh"):
        bzip2 = bz2.BZ2Decompressor()
        return _whole(bzip2.decompress(data, MAX_SIZE), bzip2.eof)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(data)
    if data.startswith(b"\x02\x21\x4c\x18"):
        return _lz4_legacy(data)
    return None


def _whole(content: bytes, ended: bool) -> bytes:
    if not ended:
        raise ValueError("it ends early, or is too large")
    return content


def _zstd(data: bytes) -> bytes:
    import zstandard  # not every kernel needs it, and importing it takes 10 ms

    try:
        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        parts = []
        size = 0
        for start in range(0, len(data), 1 << 20):
            part = unpacker.decompress(data[start : start + (1 << 20)])
            size += len(part)
            if size > MAX_SIZE:
                raise ValueError("it is too large")
            parts.append(part)
            if unpacker.eof:
                break
        return _whole(b"".join(parts), unpacker.eof)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _lz4_legacy(data: bytes) -> bytes:
    import lz4.block

    parts = []
    position = 4
    total = 0
    while position + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, position)
        block = data[position + 4 : position + 4 + size]
        if len(block) < size:
            break  # not a block: the four bytes with the kernel's size that end a payload
        part = lz4.block.decompress(block, uncompressed_size=_LZ4_LEGACY_BLOCK)
        parts.append(part)
        total += len(part)
        if total > MAX_SIZE:
            raise ValueError("it is too large")
        position += 4 + size
        if len(part) < _LZ4_LEGACY_BLOCK:
            break
    return _whole(b"".join(parts), bool(parts))
