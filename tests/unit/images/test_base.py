from __future__ import annotations

import stat
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from corral.errors import ImageError
from corral.images import base, contents
from corral.images.base import ensure_base_image
from corral.images.libraries import libraries, parse_libraries
from corral.images.model import Kernel

from . import builders
from .conftest import Reports
from .test_cpio import read

PYTHON = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
PROGRAM = Path("/bin/ls").resolve()  # stands for bwrap: any program with libraries
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
LIBRARY = f"usr/{sys.platlibdir}"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    modules = {"virtio.ko": builders.module(), "virtio-pci.ko": builders.module("virtio")}
    tree = builders.module_tree(tmp_path, "6.1", modules)
    order = (tree / "virtio.ko", tree / "virtio-pci.ko")
    return Kernel(tmp_path / "vmlinuz", "6.1", order, "a test")


def test_the_image_holds_all_that_the_guest_needs(
    cache: Path, kernel: Kernel, report: Reports
) -> None:
    image = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    found = read(image.path.read_bytes())
    assert found["usr/bin/python3"][0] == stat.S_IFREG | 0o755
    assert found["usr/bin/bwrap"][1].startswith(b"\x7fELF")
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["modules/00-virtio.ko"][1] == builders.module()
    assert "modules/01-virtio_pci.ko" in found
    assert found["lib"][1] == b"usr/lib"
    assert f"{LIBRARY}/python{VERSION}/os.py" in found
    assert any(Path(name).name.startswith("libc.so") for name in found)
    library = found[f"{LIBRARY}/python{VERSION.replace('.', '')}.zip"][1]
    names = set(zipfile.ZipFile(BytesIO(library)).namelist())
    assert {"corral_guest/supervisor.pyc", "corral_guest/wire.pyc", "socket.pyc"} <= names
    assert "site.pyc" not in names
    assert "zipfile.pyc" not in names, "what only the packing needs stays out"


def test_an_ordinary_user_in_the_guest_can_read_it(
    cache: Path, kernel: Kernel, report: Reports
) -> None:
    image = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    for name, (mode, _, _) in read(image.path.read_bytes()).items():
        if not stat.S_ISCHR(mode):
            assert mode & 0o444 == 0o444, name
        if stat.S_ISDIR(mode):
            assert mode & 0o111 == 0o111, name
        assert not mode & (stat.S_ISUID | stat.S_ISGID), name
    assert image.path.stat().st_mode & 0o777 == 0o600


def test_the_same_inputs_give_the_same_bytes(
    tmp_path: Path, kernel: Kernel, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for name in ("one", "two"):
        monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path / name))
        keys.add(ensure_base_image(kernel, PYTHON, PROGRAM, report).key)
    assert len(keys) == 1


def test_an_unchanged_image_is_not_built_again(
    cache: Path, kernel: Kernel, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_CLOCK_STEP", -(10**12))  # the test's files are seconds old
    first = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    monkeypatch.setattr(contents, "collect", lambda *_: pytest.fail("built again"))
    report.clear()
    assert ensure_base_image(kernel, PYTHON, PROGRAM, report) == first
    assert report == []


def test_a_damaged_image_is_built_again(cache: Path, kernel: Kernel, report: Reports) -> None:
    first = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:4096])
    assert ensure_base_image(kernel, PYTHON, PROGRAM, report) == first
    assert first.path.read_bytes() == whole


def test_a_changed_input_gives_another_image(
    cache: Path, kernel: Kernel, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_CLOCK_STEP", -(10**12))
    first = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    kernel.modules[0].write_bytes(builders.module() + b"patched")
    assert ensure_base_image(kernel, PYTHON, PROGRAM, report).key != first.key


def test_an_input_that_changes_while_the_image_is_built_is_not_trusted(
    cache: Path, kernel: Kernel, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = contents.collect

    def slow(*arguments: object) -> object:
        result = collect(*arguments)  # type: ignore[arg-type]
        kernel.modules[0].write_bytes(builders.module() + b"patched")
        return result

    monkeypatch.setattr(contents, "collect", slow)
    first = ensure_base_image(kernel, PYTHON, PROGRAM, report)
    monkeypatch.setattr(contents, "collect", collect)
    assert ensure_base_image(kernel, PYTHON, PROGRAM, report).key != first.key


def test_a_script_in_place_of_a_program_is_said(
    cache: Path, kernel: Kernel, report: Reports, tmp_path: Path
) -> None:
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\nexec bwrap\n")
    with pytest.raises(ImageError, match=f"{script} is not a program"):
        ensure_base_image(kernel, PYTHON, script, report)


def test_late_imports_count_and_type_checkers_imports_do_not(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text(
        "from __future__ import annotations\n"
        "import os\n"
        "from . import b\n"
        "TYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n    from typing import Any\n"
        "def late():\n    import pwd\n    from json import decoder\n"
    )
    names = set(contents.needed_modules(tmp_path))
    assert {"os", "pwd", "json", "corral_guest", "corral_guest.a"} <= names
    assert not {"typing", "__future__", "b"} & names


def test_libraries_are_where_the_loader_in_the_guest_looks() -> None:
    found = libraries([PROGRAM, PYTHON])
    assert found
    for target, source in found.items():
        assert target.startswith(("/usr/lib", "/nix/"))
        assert source.is_file()


def test_a_missing_library_is_named() -> None:
    with pytest.raises(ImageError, match=r"libcap\.so\.2 is not installed"):
        parse_libraries(b"\tlibcap.so.2 => not found\n")


def test_the_loaders_list_is_read() -> None:
    listed = (
        b"\tlinux-vdso.so.1 (0x00007ffc)\n"
        b"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f3a)\n"
        b"\t/lib64/ld-linux-x86-64.so.2 (0x00007f3b)\n"
    )
    assert list(parse_libraries(listed)) == ["/lib/x86_64-linux-gnu/libc.so.6"]
