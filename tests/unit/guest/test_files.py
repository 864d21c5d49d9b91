"""What a jail does with files for the host, run on this host as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral_guest import files, tar
from tests.unit.guest.test_tar import archive

PROGRAM = """
import os, sys
from corral_guest import files
sys.exit(files.run([os.fsencode(word) for word in sys.argv[1:]]))
"""
END = files.frame(b"")


def call(*argv: str | Path, input: bytes = b"") -> tuple[int, bytes, list[dict[str, Any]]]:
    """Its status, its output and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv], input=input, capture_output=True, timeout=30
    )
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def succeed(*argv: str | Path, input: bytes = b"") -> bytes:
    status, output, said = call(*argv, input=input)
    assert (status, said) == (files.DONE, [])
    return output


@pytest.mark.parametrize("size", [0, 1, files.PIECE, files.PIECE + 1, 3 * files.PIECE])
def test_content_passes_whole_both_ways(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    pieces = [content[at : at + files.PIECE] for at in range(0, size, files.PIECE)]
    file = tmp_path / "f"
    succeed("write", file, input=b"".join(map(files.frame, pieces)) + END)
    assert file.read_bytes() == content
    assert succeed("read", file) == content


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    file, link = tmp_path / "f", tmp_path / "l"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to("f")
    with file.open("rb") as reader:
        succeed("write", link, input=files.frame(b"new") + END)
        assert reader.read() == b"old", "who reads it meanwhile sees one of the two"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o640)
    assert link.is_symlink()
    succeed("write", file, "755", input=END)
    assert stat.S_IMODE(file.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "input", [b"", files.frame(b"part"), files.frame(b"part")[:6], b"\xff" * 9]
)
def test_content_without_its_end_changes_nothing(tmp_path: Path, input: bytes) -> None:
    file = tmp_path / "f"
    for before in (None, b"old"):
        if before is not None:
            file.write_bytes(before)
        status, _output, (said,) = call("write", file, input=input)
        assert (status, set(said)) == (files.BROKEN, {"broken"})
        assert [each.name for each in tmp_path.iterdir()] == ([] if before is None else ["f"])
    assert file.read_bytes() == b"old"


def test_a_device_is_written_to_and_not_replaced() -> None:
    succeed("write", "/dev/null", input=files.frame(b"x") + END)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_folder_is_listed_with_what_is_known_of_each_entry(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(0o750)
    (tmp_path / "b").write_bytes(b"123")
    (tmp_path / "l").symlink_to("b")
    os.mkfifo(tmp_path / "p")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).touch()
    found = {each["name"]: each for each in map(json.loads, succeed("list", tmp_path).splitlines())}
    kinds = {name: each["kind"] for name, each in found.items()}
    assert kinds == {"a": "folder", "b": "file", "l": "link", "p": "other", "\xff\n": "file"}
    assert (found["b"]["size"], found["l"]["target"], found["a"]["mode"]) == (3, "b", 0o750)
    assert found["b"]["time"] == (tmp_path / "b").stat().st_mtime_ns
    one = json.loads(succeed("stat", tmp_path / "l"))
    assert (one["name"], one["kind"], one["size"]) == ("b", "file", 3)
    assert json.loads(succeed("stat", tmp_path / "l", "nofollow")) == found["l"]


def test_folders_are_made_and_removed(tmp_path: Path) -> None:
    succeed("mkdir", tmp_path / "a", "700")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    succeed("mkdir", tmp_path / "a/b/c", "755", "parents")
    succeed("mkdir", tmp_path / "a/b/c", "755", "parents")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "a/b/link").symlink_to(tmp_path / "kept")
    assert call("remove", tmp_path / "a")[2][0]["errno"] == 39  # ENOTEMPTY
    succeed("remove", tmp_path / "a", "recursive")
    assert [each.name for each in tmp_path.rglob("*")] == ["kept", "file"]
    succeed("remove", tmp_path / "kept/file")
    succeed("remove", tmp_path / "kept")


@pytest.mark.parametrize("action", ["read", "list", "stat", "remove", "pack", "unpack"])
def test_what_is_not_there_is_told_by_errno_and_path(tmp_path: Path, action: str) -> None:
    extra = ["x"] if action == "pack" else []
    status, output, said = call(action, tmp_path / "none", *extra, input=tar.END)
    assert (status, output) == (files.FAILED, b"")
    assert said == [{"errno": 2, "path": str(tmp_path / "none")}]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for argv in (("read", tmp_path), ("write", tmp_path)):
        assert call(*argv, input=END)[2][0]["errno"] == 21
    assert call("list", Path(__file__))[2][0]["errno"] == 20


def test_what_is_no_action_is_a_misuse(tmp_path: Path) -> None:
    assert call("mkdir", tmp_path)[0] == files.MISUSED
    assert call("mkdir", tmp_path / "x", "9")[0] == files.MISUSED


def test_a_tree_is_packed_and_unpacked_as_it_was(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    (tree / "sub").mkdir(parents=True)
    copy.mkdir()
    (tree / "sub" / ("n" * 200)).write_bytes(os.urandom(200_000))
    (tree / "run").write_bytes(b"#!/bin/sh\n")
    (tree / "run").chmod(0o751)
    (tree / "link").symlink_to("sub")
    (tree / "run2").hardlink_to(tree / "run")
    os.utime(tree / "run", (1, 1_000_000_000))
    (tree / "sub").chmod(0o550)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
    status, packed, said = call("pack", tree, "other name")
    assert (status, said) == (files.DONE, [{"left_out": "other name/socket"}])
    (tree / "socket").unlink()
    succeed("unpack", copy, input=packed)
    made = copy / "other name"

    def seen(folder: Path) -> dict[str, tuple[object, ...]]:
        return {
            str(each.relative_to(folder)): (
                each.lstat().st_mode,
                each.readlink() if each.is_symlink() else each.is_file() and each.read_bytes(),
                each.is_symlink() or int(each.stat().st_mtime),
            )
            for each in folder.rglob("*")
        }

    assert seen(made) == seen(tree)
    for folder in (tree, made):
        (folder / "sub").chmod(0o755)


def test_unpacking_replaces_what_is_there_and_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").symlink_to(target)
    content = [tar.Entry(b"f", tar.FILE, 0o4755, 4), tar.Entry(b"h", tar.HARD_LINK, 0, target=b"f")]
    succeed("unpack", folder, input=archive(content))
    assert target.read_bytes() == b"kept"
    assert (folder / "f").read_bytes() == (folder / "h").read_bytes() == b"xxxx"
    assert stat.S_IMODE((folder / "f").lstat().st_mode) == 0o755


@pytest.mark.parametrize(
    "data",
    [
        b"",
        archive([tar.Entry(b"f", tar.FILE, 0o644, 700)])[:1200],
        archive([tar.Entry(b"../f", tar.FILE, 0o644)]),
        archive([tar.Entry(b"/tmp/f", tar.FILE, 0o644)]),
        archive([tar.Entry(b"h", tar.HARD_LINK, 0, target=b"/etc/passwd")]),
        tar._block(b"dev", b"3", 0o644, 0, 0, b"") + tar.END,
        b"noise" * 200,
    ],
)
def test_an_archive_that_is_none_or_leaves_its_folder_is_refused(
    tmp_path: Path, data: bytes
) -> None:
    status, _output, (said,) = call("unpack", tmp_path, input=data)
    assert (status, set(said)) == (files.BROKEN, {"broken"})
