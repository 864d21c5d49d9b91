from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from contextlib import suppress

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ImageError
from corral.images.compression import decompress


def lz4_legacy(content: bytes) -> bytes:
    packed = b"\x02\x21\x4c\x18"
    for start in range(0, len(content), 8 << 20):
        block = lz4.block.compress(content[start : start + (8 << 20)], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return packed


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "lz4": lz4_legacy,
}
CONTENT = bytes(range(256)) * 100


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_of_kernels_and_modules_is_unpacked(name: str) -> None:
    assert decompress(FORMATS[name](CONTENT)) == CONTENT


@pytest.mark.parametrize("name", FORMATS)
def test_the_size_that_ends_a_kernels_payload_is_no_part_of_it(name: str) -> None:
    assert decompress(FORMATS[name](CONTENT) + struct.pack("<I", len(CONTENT))) == CONTENT


def test_lz4_in_several_blocks() -> None:
    content = CONTENT * 800
    assert decompress(lz4_legacy(content) + struct.pack("<I", len(content))) == content


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("lz4", "lzma")])
def test_data_that_ends_early_is_an_error(name: str) -> None:
    with pytest.raises(ImageError, match="damaged"):
        decompress(FORMATS[name](CONTENT)[:-20])


def test_an_unknown_format_is_none() -> None:
    assert decompress(b"\x89LZO....") is None


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200), st.integers(4, 60))
def test_garbage_raises_nothing_but_an_image_error(name: str, tail: bytes, kept: int) -> None:
    with suppress(ImageError):
        decompress(FORMATS[name](CONTENT)[:kept] + tail)
