"""Where a copy goes: by the rules of docker cp."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from corral.cli.cp import parse
from corral.errors import FileError, FileMissingError, NotFolderError
from corral.sandbox.copying import copy_in, copy_out
from corral.sandbox.files import Executor, Files
from tests.support.local import Local


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The folder that stands for a sandbox."""
    folder = tmp_path / "guest"
    (folder / "src" / "sub").mkdir(parents=True)
    (folder / "src" / "sub" / "f").write_bytes(b"deep")
    (folder / "file").write_bytes(b"new")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the same in it."""
    folder = tmp_path / "here"
    (folder / "src" / "sub").mkdir(parents=True)
    (folder / "src" / "sub" / "f").write_bytes(b"deep")
    (folder / "file").write_bytes(b"new")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def files(guest: Path) -> Files:
    return Files(cast(Executor, Local(guest)))


CASES = [
    # source, target, what must be there before, where the deep file is after
    ("src", "new", None, "new/sub/f"),
    ("src/", "new", None, "new/sub/f"),
    ("src/.", "new", None, "new/sub/f"),
    ("src", "dir", "dir/", "dir/src/sub/f"),
    ("src", "dir/", "dir/", "dir/src/sub/f"),
    ("src/.", "dir", "dir/", "dir/sub/f"),
    ("src/sub/f", "dir", "dir/", "dir/f"),
    ("src/sub/f", "new", None, "new"),
    ("src/sub/f", "old", "old", "old"),
    ("src/sub/..", "dir", "dir/", "dir/src/sub/f"),
    ("src/.", ".", None, "sub/f"),
]


def prepare(folder: Path, before: str | None) -> None:
    if before is not None and before.endswith("/"):
        (folder / before).mkdir(mode=0o711)
    elif before is not None:
        (folder / before).write_bytes(b"old")


@pytest.mark.parametrize(("source", "target", "before", "after"), CASES)
async def test_out_of_the_sandbox(
    files: Files, here: Path, source: str, target: str, before: str | None, after: str
) -> None:
    prepare(here, before)
    await copy_out(files, source, target)
    assert (here / after).read_bytes() == b"deep"
    if before == "dir/":
        assert (here / "dir").stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(("source", "target", "before", "after"), CASES)
async def test_into_the_sandbox(
    files: Files, guest: Path, here: Path, source: str, target: str, before: str | None, after: str
) -> None:
    prepare(guest, before)
    await copy_in(files, source, target)
    assert (guest / after).read_bytes() == b"deep"
    if before == "dir/":
        assert (guest / "dir").stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("none", "x", FileMissingError),
        ("file", "none/", NotFolderError),
        ("file", "none/x", FileMissingError),
        ("src", "file", NotFolderError),
        ("file/.", "src", FileError),
    ],
)
async def test_what_fits_nowhere_is_refused(
    files: Files, guest: Path, here: Path, source: str, target: str, kind: type[FileError]
) -> None:
    (guest / "file").write_bytes(b"kept")
    for copy, folder in ((copy_in, guest), (copy_out, here)):
        before = sorted(folder.rglob("*"))
        if source == "src" and copy is copy_in:
            with pytest.raises(FileError):
                await copy(files, source, target)
        else:
            with pytest.raises(kind):
                await copy(files, source, target)
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app:/tmp", ("app", "/tmp")),
        ("app:x:y", ("app", "x:y")),
        ("app:", ("app", ".")),
        ("/a:b", None),
        ("./a:b", None),
        ("a/b:c", None),
        ("file", None),
        ("-", None),
    ],
)
def test_a_sandbox_is_named_before_a_colon(text: str, expected: tuple[str, str] | None) -> None:
    assert parse(text) == expected
