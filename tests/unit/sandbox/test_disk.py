"""A disk's file: what is accepted as one. With machines: tests/vm/test_disk.py."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.backends.qemu import disk as qcow2
from corral.errors import HostError, SandboxError
from corral.events import Report, silent
from corral.proc import Helpers
from corral.sandbox.disk import opened
from tests.support import examples

MIB = 1 << 20
NOBODY_STARTS = Helpers.__new__(Helpers)  # what exists already needs no helper


def header(size: int = 64 * MIB, **changes: int) -> bytes:
    """A qcow2 header as QEMU writes it, with fields changed (docs/interop/qcow2.rst)."""
    fields = {
        **{"magic": 0x514649FB, "version": 3, "backing": 0, "backing_size": 0, "cluster_bits": 16},
        **{"size": size, "crypt": 0, "l1_size": 1, "l1": 0x30000, "refcount": 0x10000},
        **{"refcount_clusters": 1, "snapshots": 0, "snapshots_at": 0, "incompatible": 0},
        **{"compatible": 0, "autoclear": 0, "order": 4, "length": 104},
        **changes,
    }
    return struct.pack(">IIQIIQIIQQIIQQQQII", *fields.values())


def test_the_size_is_read_from_the_header() -> None:
    assert qcow2.examine(header(20 << 30)) == 20 << 30


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": 0x514649FC},
        {"version": 2},
        {"backing": 512},
        {"crypt": 1},
        {"incompatible": 1 << 2},  # a data file elsewhere
        {"incompatible": 1 << 1},  # damaged
        {"size": 0},
    ],
    ids=str,
)
def test_what_corral_did_not_make_is_refused(changes: dict[str, int]) -> None:
    assert qcow2.examine(header(**changes)) is None


@given(st.binary(max_size=120))
def test_any_bytes_are_judged_without_a_fault(data: bytes) -> None:
    assert qcow2.examine(data) is None


async def use(path: Path, size: int, report: Report = silent) -> int:
    async with opened(path, size, examples.facts(), NOBODY_STARTS, report) as disk:
        return disk.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(header(128 * MIB))
    return path


async def test_a_disk_is_opened_and_may_grow(file: Path) -> None:
    assert await use(file, 128 * MIB) == 128 * MIB
    assert await use(file, 256 * MIB) == 128 * MIB


async def test_a_disk_does_not_shrink(file: Path) -> None:
    with pytest.raises(SandboxError, match="128MiB, and 64MiB are wanted") as caught:
        await use(file, 64 * MIB)
    assert "--disk" in (caught.value.hint or "")


async def test_a_disk_is_one_machines_at_a_time(file: Path) -> None:
    async with opened(file, 128 * MIB, examples.facts(), NOBODY_STARTS, silent):
        with pytest.raises(SandboxError, match="in use"):
            await use(file, 128 * MIB)
    assert await use(file, 128 * MIB) == 128 * MIB


def _foreign(path: Path) -> None:
    path.write_bytes(header(backing=512))


def _link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize(
    ("harm", "error"),
    [(_foreign, SandboxError), (lambda p: os.truncate(p, 10), SandboxError), (_link, HostError)],
    ids=["backing file", "cut off", "link"],
)
async def test_a_file_that_is_no_disk_of_corrals_is_refused(
    file: Path, harm: Callable[[Path], None], error: type[Exception]
) -> None:
    harm(file)
    with pytest.raises(error):
        await use(file, 128 * MIB)
