"""What a sandbox uses, read from processes of files."""

from __future__ import annotations

import os
from pathlib import Path

from corral.sandbox.usage import Usage, measure

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def process(
    proc: Path, pid: int, parent: int, *, ticks: int = 0, anon: int = 0, name: str = "x"
) -> None:
    """A process with times (its own and those of its ended children) and kilobytes of memory."""
    folder = proc / str(pid)
    folder.mkdir()
    times = f"{ticks} {ticks} {ticks} {ticks}"
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 0 1 2 3 4 {times} 20 0 1")
    (folder / "smaps_rollup").write_text(
        f"Pss: {anon + 4 + 1000} kB\nPss_Anon: {anon} kB\nPss_File: 4 kB\nPss_Shmem: 1000 kB\n"
    )


def file_of(size: int) -> int:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 16 * MIB)
    os.write(fd, bytes(size))
    return fd


def test_a_family_is_summed_with_its_ram_and_disk(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, ticks=TICKS, anon=100)
    process(tmp_path, 11, 10, ticks=TICKS, anon=50, name="a) S 1 (")
    process(tmp_path, 12, 11)
    process(tmp_path, 20, 1, ticks=999, anon=999)
    (tmp_path / "self").mkdir()
    ram, disk = file_of(3 * MIB), file_of(1 * MIB)
    found = measure((10,), ram=ram, disk=disk, proc=str(tmp_path))
    assert found == Usage(
        processes=3, cpu=8.0, memory=3 * MIB + (150 + 3 * 4) * 1024, ram=3 * MIB, disk=1 * MIB
    )
    os.close(ram)
    os.close(disk)


def test_who_is_gone_uses_nothing(tmp_path: Path) -> None:
    assert measure((10,), proc=str(tmp_path)) == Usage(
        processes=0, cpu=0.0, memory=0, ram=0, disk=0
    )


def test_an_old_kernel_tells_less(tmp_path: Path) -> None:
    process(tmp_path, 10, 1)
    (tmp_path / "10" / "smaps_rollup").unlink()
    (tmp_path / "10" / "statm").write_text("500 30 10 1 0 90 0")
    page = os.sysconf("SC_PAGE_SIZE")
    assert measure((10,), proc=str(tmp_path)).memory == 20 * page


def test_this_process_is_found() -> None:
    found = measure((os.getpid(),))
    assert found.processes >= 1 and found.cpu > 0 and found.memory > MIB
