"""What a sandbox sees of the host's files, and what the SDK does with its own, on every backend."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from corral import Sandbox
from corral.errors import (
    FileDeniedError,
    FileExistsHereError,
    FileMissingError,
    IsFolderError,
    NotFolderError,
    UnsafeArchiveError,
)
from tests.conformance.conftest import Place

Shell = Callable[[str], str]


def test_the_workspace_is_the_hosts_folder(place: Place, sh: Shell) -> None:
    assert sh("cat here") == "of the host\n"
    sh("echo of the guest > made; chmod 751 made; mkdir folder; ln -s made link")
    made = (place.workspace / "made").stat()
    assert (place.workspace / "made").read_text() == "of the guest\n"
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (os.getuid(), 0o751)
    assert (place.workspace / "folder").is_dir()


def test_a_change_on_the_host_is_seen_by_the_next_command(place: Place, sh: Shell) -> None:
    file = place.workspace / "changing"
    for text in ("one\n", "two and more\n", "3\n"):
        file.write_text(text)
        assert sh("cat changing") == text
    file.unlink()
    assert sh("test -e changing || echo gone") == "gone\n"


def test_a_read_only_share_is_read_only(place: Place, sh: Shell) -> None:
    share = place.read_only
    assert sh(f"cat {share}/here") == "of the host\n"
    before = {each.name: each.stat().st_mtime_ns for each in share.iterdir()}
    for attempt in (
        *("echo x > here", "echo x >> here", "touch new", "rm here", "mv here there"),
        *("chmod 777 here", "ln here hard", "mkdir d", "mknod p p", "truncate -s 0 here"),
    ):
        done = place.box.exec(["sh", "-c", attempt], cwd=str(share))
        assert done.status != 0, attempt
        assert "ead-only" in done.stderr or "not permitted" in done.stderr, done.stderr
    with pytest.raises(FileDeniedError):
        place.box.files.write(f"{share}/here", b"x")
    assert {each.name: each.stat().st_mtime_ns for each in share.iterdir()} == before
    assert (share / "here").read_text() == "of the host\n"


def test_nothing_else_of_the_host_is_there(place: Place, sh: Shell) -> None:
    assert not place.box.files.exists(str(place.beside))
    (place.workspace / "leads-out").symlink_to(place.beside / "here")
    assert sh("cat leads-out 2>/dev/null || echo nothing") == "nothing\n"
    assert "PASSWORD" not in sh("cat .env 2>/dev/null || true")


def test_what_is_written_elsewhere_stays_in_the_sandbox(place: Place, sh: Shell) -> None:
    name = f"corral-conformance-{os.getpid()}"
    sh(f"for d in /tmp /var/tmp ~; do echo x > $d/{name}; done")
    assert not any(Path(folder, name).exists() for folder in ("/tmp", "/var/tmp", Path.home()))


def test_files_of_any_kind_and_size_pass(box: Sandbox) -> None:
    for size in (0, 1, 65536, 3_000_001):
        content = os.urandom(size)
        box.files.write("/tmp/file", content, mode=0o640)
        assert box.files.read("/tmp/file") == content
        assert box.exec(["stat", "-c", "%s %a", "/tmp/file"]).stdout == f"{size} 640\n"
    box.files.write("/tmp/file", iter([b"in ", b"pieces"]))
    assert b"".join(box.files.stream("/tmp/file")) == b"in pieces"


def test_folders_are_listed_made_and_removed(box: Sandbox, sh: Shell) -> None:
    box.files.mkdir("/tmp/a/b", parents=True)
    sh("cd /tmp/a; echo 123 > f; ln -s f l; mkfifo p; touch $(printf '\\377')")
    found = {each.name: (each.kind, each.size) for each in box.files.list("/tmp/a")}
    assert found.keys() == {"b", "f", "l", "p", "\udcff"}
    assert (found["f"], found["b"][0], found["p"][0]) == (("file", 4), "folder", "other")
    assert box.files.stat("/tmp/a/l", follow=False).target == "f"
    assert box.files.stat("/tmp/a/l").size == 4
    box.files.remove("/tmp/a", recursive=True)
    assert not box.files.exists("/tmp/a")


def test_each_failure_has_its_class(box: Sandbox) -> None:
    box.files.mkdir("/tmp/there", parents=True)
    for kind, call in (
        (FileMissingError, lambda: box.files.read("/none")),
        (IsFolderError, lambda: box.files.read("/tmp")),
        (NotFolderError, lambda: box.files.list("/etc/passwd")),
        (FileExistsHereError, lambda: box.files.mkdir("/tmp/there")),
        (FileDeniedError, lambda: box.files.write("/proc/version", b"")),
    ):
        with pytest.raises(kind):
            call()


def test_trees_go_in_and_out_as_they_are(box: Sandbox, tmp_path: Path, sh: Shell) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "data").write_bytes(os.urandom(300_000))
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    (tree / "sub" / "up").symlink_to("../run")
    box.files.upload(tree, "/tmp/tree")
    assert sh("/tmp/tree/sub/up; stat -c %a /tmp/tree/run") == "ran\n755\n"
    copied = box.files.download("/tmp/tree", tmp_path / "back")
    assert copied.files == 2
    for each in tree.rglob("*"):
        other = tmp_path / "back" / each.relative_to(tree)
        assert other.lstat().st_mode == each.lstat().st_mode
        assert each.is_dir() or other.read_bytes() == each.read_bytes()


def test_what_would_do_harm_here_is_refused(box: Sandbox, tmp_path: Path, sh: Shell) -> None:
    sh("mkdir -p /tmp/bad; ln -sf /etc/passwd /tmp/bad/l")
    with pytest.raises(UnsafeArchiveError, match="leads out"):
        box.files.download("/tmp/bad", tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []
    sh("rm /tmp/bad/l; touch /tmp/bad/f; chmod 4755 /tmp/bad/f; mkfifo /tmp/bad/p")
    copied = box.files.download("/tmp/bad", tmp_path / "bad")
    assert (copied.left_out, copied.files) == (("p",), 1)
    assert stat.S_IMODE((tmp_path / "bad" / "f").stat().st_mode) == 0o755
