"""Copies of folders: the same in everything, and led nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from corral.host.copies import MAX_DEPTH, copy_file, copy_folder, remove_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_contents_modes_times_and_links_are_the_same(source: Path, target: Path) -> None:
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(b"x" * 100_000)
    (source / "deep/er/file").chmod(0o640)
    os.utime(source / "deep/er/file", ns=(1_000, 2_000_000_007))
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    os.link(source / "tool", source / "deep/same")
    (source / "link").symlink_to("/etc/passwd")
    (source / "closed").mkdir()
    (source / "closed/inside").touch()
    (source / "closed").chmod(0o555)
    name = os.fsdecode(b"stray \xff byte")
    (source / name).touch()
    assert copy_folder(str(source), str(target)) == []
    assert (target / "deep/er/file").read_bytes() == b"x" * 100_000
    status = (target / "deep/er/file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 2_000_000_007)
    assert (target / "tool").samefile(target / "deep/same")
    assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
    assert os.readlink(target / "link") == "/etc/passwd"  # noqa: PTH115 - its text
    assert stat.S_IMODE((target / "closed").stat().st_mode) == 0o555
    assert (target / "closed/inside").exists() and (target / name).exists()
    assert (target / "deep").stat().st_mtime_ns == (source / "deep").stat().st_mtime_ns
    remove_tree(target)
    assert not target.exists()


def test_holes_stay_holes(source: Path, target: Path) -> None:
    with open(source / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    copy_folder(str(source), str(target))
    copied = (target / "sparse").stat()
    assert copied.st_size == 64 << 20 and copied.st_blocks * 512 < 1 << 20
    with open(target / "sparse", "rb") as file:
        file.seek(32 << 20)
        assert file.read(5) == b"data\0"


def test_an_empty_and_a_wholly_sparse_file(source: Path, tmp_path: Path) -> None:
    for size in (0, 1 << 20):
        with open(tmp_path / "new", "wb+") as new, open(source / "old", "wb+") as old:
            old.truncate(size)
            copy_file(old.fileno(), new.fileno())
            assert os.fstat(new.fileno()).st_size == size


def test_what_is_no_plain_file_is_left_out_and_named(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    (source / "plain").touch()
    assert copy_folder(str(source), str(target)) == ["pipe"]
    assert names(target) == ["plain"]


def test_set_id_bits_are_dropped(source: Path, target: Path) -> None:
    (source / "tool").touch()
    (source / "tool").chmod(0o6755)
    (source / "folder").mkdir()
    (source / "folder").chmod(0o3777)
    copy_folder(str(source), str(target))
    assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "folder").stat().st_mode) == 0o777


def test_what_is_hidden_is_there_and_empty(source: Path, target: Path) -> None:
    (source / "secrets").mkdir()
    (source / "secrets/key").write_text("secret")
    (source / ".env").write_text("secret")
    copy_folder(str(source), str(target), lambda path, _folder: path in ("secrets", ".env"))
    assert (target / ".env").read_bytes() == b"" and names(target / "secrets") == []


def test_a_copy_inside_its_source_does_not_copy_itself(source: Path) -> None:
    (source / "file").touch()
    copy_folder(str(source), str(source / "copy"))
    assert names(source / "copy") == ["file"]


def test_a_target_that_exists_is_refused(source: Path, target: Path) -> None:
    target.mkdir()
    with pytest.raises(FileExistsError):
        copy_folder(str(source), str(target))


def test_folders_deeper_than_a_path_can_name_are_copied(source: Path, target: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 100, dir_fd=fd)
        inner = os.open("n" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert copy_folder(str(source), str(target)) == []


def deep(folder: Path, depth: int) -> None:
    """Folders in folders, as a guest makes them: deeper than a path, or a recursion, can be."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_a_copy_ends_at_a_depth_that_nobody_needs(source: Path, target: Path) -> None:
    deep(source, MAX_DEPTH + 3)
    assert copy_folder(str(source), str(target)) == ["/".join(["d"] * (MAX_DEPTH + 1))]
    remove_tree(source)
    remove_tree(target)


def test_a_tree_of_any_depth_is_removed(source: Path) -> None:
    deep(source, 5000)
    (source / "d/link").symlink_to("/")
    (source / "d/closed").mkdir()
    (source / "d/closed/file").touch()
    (source / "d/closed").chmod(0)
    (source / "d").chmod(0o500)
    source.chmod(0)
    remove_tree(source)
    assert not source.exists()
