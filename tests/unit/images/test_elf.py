from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ImageError
from corral.images import elf

from . import builders

PYTHON = Path(sys.executable).resolve()


def test_a_section_is_found_by_name() -> None:
    data = builders.elf({".text": b"code", ".modinfo": b"depends=\0"})
    assert elf.section(data, ".modinfo") == b"depends=\0"
    assert elf.section(data, ".data") is None


def test_the_loader_of_a_program_is_found() -> None:
    loader = elf.interpreter(PYTHON.read_bytes())
    assert loader is not None
    assert Path(loader).exists()


def test_a_kernel_with_a_pvh_note_is_told_from_one_without() -> None:
    assert elf.boots_by_pvh(builders.elf(notes=builders.PVH_NOTE))
    assert not elf.boots_by_pvh(builders.elf(notes=builders.PVH_NOTE.replace(b"Xen", b"GNU")))


def test_a_program_runs_without_what_is_never_loaded(tmp_path: Path) -> None:
    loader = elf.interpreter(PYTHON.read_bytes())
    assert loader is not None
    small = tmp_path / "python"
    small.write_bytes(elf.loadable(PYTHON.read_bytes()))
    small.chmod(0o755)
    subprocess.run([loader, "--verify", str(small)], check=True)
    assert small.stat().st_size <= PYTHON.stat().st_size


def test_what_is_not_elf_is_an_error() -> None:
    with pytest.raises(ImageError):
        elf.section(b"#!/bin/sh\n", ".modinfo")


@given(st.data())
def test_damage_raises_nothing_but_an_image_error(data: st.DataObject) -> None:
    content = bytearray(builders.elf({".modinfo": b"depends=\0"}, builders.PVH_NOTE))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (elf.interpreter, elf.boots_by_pvh, elf.loadable):
        with suppress(ImageError):
            read(damaged)
    with suppress(ImageError):
        elf.section(damaged, ".modinfo")
