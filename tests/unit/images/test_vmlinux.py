from __future__ import annotations

import lzma
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ImageError
from corral.images import vmlinux

from . import builders
from .test_compression import lz4_legacy

ELF = builders.elf(notes=builders.PVH_NOTE, tail=b"code" * 64)


@pytest.mark.parametrize(
    "image",
    [
        builders.kernel(),
        builders.bzimage(lz4_legacy(ELF), len(ELF)),
        builders.bzimage(lzma.compress(ELF), len(ELF)),
    ],
)
def test_the_elf_kernel_is_taken_out_of_a_bzimage(image: bytes) -> None:
    assert vmlinux.unpack(image) == ELF


def test_the_release_is_read_from_either_kind_of_image() -> None:
    assert vmlinux.release(builders.kernel(version="6.12.3-cloud")) == "6.12.3-cloud"
    banner = b"\0Linux version 6.1.9 (builder@host) (gcc) #1 SMP\n\0"
    assert vmlinux.release(builders.elf(tail=banner)) == "6.1.9"
    assert vmlinux.release(b"#!/bin/sh\n") is None


def test_a_kernel_without_pvh_is_booted_as_it_is() -> None:
    content = builders.elf(tail=b"code" * 64)
    assert vmlinux.unpack(builders.bzimage(lzma.compress(content), len(content))) is None


def test_an_unknown_compression_is_booted_as_it_is() -> None:
    assert vmlinux.unpack(builders.bzimage(b"\x89LZO1234", 8)) is None


def test_a_payload_of_another_size_than_it_says_is_an_error() -> None:
    with pytest.raises(ImageError, match="damaged"):
        vmlinux.unpack(builders.bzimage(lz4_legacy(ELF), len(ELF) + 1))


def test_an_image_cut_short_is_an_error() -> None:
    with pytest.raises(ImageError, match="cut short"):
        vmlinux.unpack(builders.kernel()[:-1])


@given(st.data())
def test_damage_raises_nothing_but_an_image_error(data: st.DataObject) -> None:
    content = bytearray(builders.kernel())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        vmlinux.release(bytes(content))
        vmlinux.unpack(bytes(content))
