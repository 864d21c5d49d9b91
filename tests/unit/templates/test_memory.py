"""A machine's memory comes back as it was, and its zeros take no room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.templates import copy_memory, keep_memory

PAGE = 4096


def memory(content: bytes) -> int:
    fd = os.memfd_create("memory")
    os.write(fd, content)
    return fd


def round_trip(content: bytes, file: Path) -> bytes:
    """What a new memory holds after the old one was kept and copied; both have its size."""
    old = memory(content)
    kept = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    keep_memory(old, kept)
    new = os.memfd_create("memory")
    os.ftruncate(new, len(content))
    copy_memory(kept, new)
    result = os.pread(new, len(content) + 1, 0)
    for fd in (old, kept, new):
        os.close(fd)
    return result


@given(pages=st.lists(st.sampled_from([b"\0", b"a", b"\xff"]), max_size=600))
def test_what_is_kept_comes_back(
    pages: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"".join(letter * PAGE for letter in pages)
    assert round_trip(content, tmp_path_factory.getbasetemp() / "memory") == content


def test_a_single_byte_in_a_page_counts(tmp_path: Path) -> None:
    content = bytearray(3 << 20)
    for offset in (0, PAGE - 1, PAGE, (1 << 20) - 1, 1 << 20, len(content) - 1):
        content[offset] = 7
    assert round_trip(bytes(content), tmp_path / "memory") == bytes(content)


def test_pages_of_zeros_take_no_room(tmp_path: Path) -> None:
    content = bytes(8 << 20) + b"x" * PAGE + bytes(8 << 20)
    assert round_trip(content, tmp_path / "memory") == content
    status = (tmp_path / "memory").stat()
    assert status.st_size == len(content)
    assert status.st_blocks * 512 <= 64 * 1024


def test_a_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    """As a file system that lost the end of it would give it."""
    old = memory(b"x" * PAGE * 4)
    kept = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT, 0o600)
    keep_memory(old, kept)
    os.ftruncate(kept, PAGE)
    new = os.memfd_create("memory")
    copy_memory(kept, new)
    assert os.fstat(new).st_size == PAGE, "its size is the file's: the store compares that first"
    for fd in (old, kept, new):
        os.close(fd)
