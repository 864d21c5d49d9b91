"""Hostile archives: nothing outside the target is ever made, changed or followed."""

from __future__ import annotations

import fcntl
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import CorralError, FileError, UnsafeArchiveError
from corral.host.copies import remove_tree
from corral.sandbox import archives
from corral.sandbox.archives import Unpacker
from corral_guest import tar
from corral_guest.tar import Entry
from tests.unit.guest.test_tar import archive

# Few names, so that entries meet; and every way to leave.
parts = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b"out", b"secret"])
paths = st.one_of(
    st.lists(parts, min_size=1, max_size=5).map(b"/".join),
    st.lists(st.sampled_from([b"a", b"b"]), max_size=4).map(lambda each: b"/".join([b"x", *each])),
)
targets = st.one_of(
    paths, st.sampled_from([b"/", b"/tmp", b"../out", b"../../out", b"a/..", b"..", b"."])
)
hostile = st.lists(
    st.one_of(
        st.builds(Entry, paths, st.just(tar.FOLDER), st.just(0o755)),
        st.builds(Entry, paths, st.just(tar.LINK), st.just(0o777), target=targets),
        st.builds(Entry, paths, st.just(tar.HARD_LINK), st.just(0o644), target=targets),
        st.builds(Entry, paths, st.just(tar.FILE), st.just(0o644), st.integers(0, 700)),
        st.builds(Entry, paths, st.just(tar.FILE), st.sampled_from([0o4755, 0o2755, 0o1777])),
    ),
    max_size=6,
)
# What may pass, more often: a tree that begins as it has to.
trees = hostile.map(lambda rest: [Entry(b"x", tar.FOLDER, 0o755), *rest])


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        str(each): (each.lstat().st_mode, each.lstat().st_ino, each.lstat().st_ctime_ns)
        for each in sorted(folder.rglob("*"))
    }


def unpack(data: bytes, target: Path, piece: int = 1 << 20) -> None:
    with Unpacker(target) as unpacker:
        for start in range(0, len(data), piece):
            unpacker.feed(data[start : start + piece])
        unpacker.put()


@given(st.one_of(hostile, trees), st.integers(1, 2000), st.booleans())
@settings(max_examples=300)
def test_no_archive_reaches_beyond_its_target(
    entries: list[Entry], piece: int, there: bool
) -> None:
    with tempfile.TemporaryDirectory() as base:
        outside, inside = Path(base, "out"), Path(base, "in")
        outside.mkdir()
        inside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        target = inside / "target"
        if there:  # a folder with links that the user, or a guest in a workspace, has made
            target.mkdir()
            (target / "a").symlink_to(outside)
            (target / "b").symlink_to(outside / "secret")
        before = snapshot(outside)
        kept = snapshot(target)
        try:
            unpack(archive(entries), target, piece)
        except CorralError as error:
            assert isinstance(error, UnsafeArchiveError | FileError)
            assert snapshot(target) == kept, "what is refused changes nothing"
        else:
            for each in target.rglob("*"):
                if each.is_symlink() and not there:
                    leads = Path(os.path.realpath(each))  # a loop leads to itself
                    assert target.resolve() in (leads, *leads.parents)
                assert not each.lstat().st_mode & 0o7000
        assert snapshot(outside) == before
        assert {each.name for each in inside.iterdir()} <= {"target"}
        assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python 3.11.4 and later have it")
@given(trees)
@settings(max_examples=300)
def test_what_passes_here_passes_the_standard_librarys_filter(entries: list[Entry]) -> None:
    """Held against another's judgement (tarfile.data_filter, PEP 706)."""
    with tempfile.TemporaryDirectory() as base:
        target = Path(base, "target")
        try:
            unpack(archive(entries), target)
        except CorralError:
            return
        plain = Path(base, "plain")
        plain.mkdir()
        file = Path(base, "archive.tar")
        file.write_bytes(archive(entries))
        with tarfile.open(file) as again:
            again.extractall(plain, filter="data")
        made = {str(each.relative_to(target)) for each in target.rglob("*")}
        assert made == {str(each.relative_to(plain / "x")) for each in (plain / "x").rglob("*")}


FOLDER = Entry(b"x", tar.FOLDER, 0o755)


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, tar.LINK, 0o777, target=target)


def file(path: bytes, mode: int = 0o644, size: int = 0) -> Entry:
    return Entry(path, tar.FILE, mode, size)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file(b"/etc/cron.d/x")], "absolute"),
        ([FOLDER, file(b"x/../../x")], "leaves"),
        ([file(b"y")], "outside"),
        ([FOLDER, FOLDER], "twice"),
        ([file(b"x"), file(b"x")], "twice"),
        ([file(b"x"), file(b"x/y")], "twice"),
        ([FOLDER, file(b"x/a/b")], "in no folder"),
        ([FOLDER, link(b"x/l", b"/etc")], "leads out"),
        ([FOLDER, link(b"x/l", b"../y")], "leads out"),
        ([FOLDER, link(b"x/l", b"a/../../../y")], "leads out"),
        ([link(b"x", b"y")], "leads out"),
        ([FOLDER, link(b"x/l", b"."), file(b"x/l/f")], "twice"),
        ([FOLDER, link(b"x/l", b"f"), file(b"x/l")], "twice"),
        ([FOLDER, Entry(b"x/h", tar.HARD_LINK, 0, target=b"x/f")], "hard link"),
        ([FOLDER, file(b"x/f", 0o4755)], "set-id"),
        ([Entry(b"x", tar.FOLDER, 0o1777)], "sticky"),
        ([FOLDER, file(b"x/" + b"n" * 256)], "no name"),
        ([Entry(b"/".join([b"x"] * n), tar.FOLDER, 0o755) for n in range(1, 202)], "too deep"),
    ],
)
def test_each_attack_is_refused_by_name(tmp_path: Path, entries: list[Entry], reason: str) -> None:
    with pytest.raises(UnsafeArchiveError, match=reason) as caught:
        unpack(archive(entries), tmp_path / "t")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_chain_of_links_that_would_lead_out_is_refused(tmp_path: Path) -> None:
    """Each link alone stays within (CVE-2025-4517 and its kin); together they would not."""
    entries = [
        FOLDER,
        Entry(b"x/d", tar.FOLDER, 0o755),
        link(b"x/d/up", b".."),
        link(b"x/out", b"d/up/.."),
    ]
    with pytest.raises(UnsafeArchiveError, match="leads out"):
        unpack(archive(entries), tmp_path / "t")
    unpack(archive(entries[:3]), tmp_path / "t")
    assert (tmp_path / "t" / "d" / "up").resolve() == tmp_path / "t"


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    for flag in (b"3", b"4", b"6"):
        with pytest.raises(UnsafeArchiveError, match="no file"):
            unpack(tar._block(b"x", flag, 0o644, 0, 0, b"") + tar.END, tmp_path / "t")


def test_an_archive_larger_than_the_disk_is_refused_at_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tar.header(file(b"x", size=1 << 60))
    with (
        pytest.raises(UnsafeArchiveError, match="does not fit"),
        Unpacker(tmp_path / "t") as unpacker,
    ):
        unpacker.feed(huge)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    many: Iterable[Entry] = (FOLDER, *(file(b"x/%d" % n) for n in range(3)))
    with pytest.raises(UnsafeArchiveError, match="does not fit"):
        unpack(archive(many), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_without_its_end_puts_nothing_in_place(tmp_path: Path) -> None:
    whole = archive([FOLDER, file(b"x/f", size=600)])
    for end in (0, 512, 1500, len(whole) - 512):
        with pytest.raises(UnsafeArchiveError, match="without its end"):
            unpack(whole[:end], tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_copy_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".corral-cp-dead" / "sub").mkdir(parents=True)
    (tmp_path / ".corral-cp-link").symlink_to("/")
    busy = tmp_path / ".corral-cp-busy"
    busy.mkdir()
    fd = os.open(busy, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    unpack(archive([file(b"x")]), tmp_path / "t")
    os.close(fd)
    assert {each.name for each in tmp_path.iterdir()} == {
        ".corral-cp-busy",
        ".corral-cp-link",
        "t",
    }


def test_while_it_is_built_nobody_else_can_look_in(tmp_path: Path) -> None:
    with Unpacker(tmp_path / "t") as unpacker:
        unpacker.feed(tar.header(file(b"x", 0o644, 5)) + b"12345")
        (staging,) = tmp_path.iterdir()
        assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        assert not (tmp_path / "t").exists()


def test_paths_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_NAMES", 300)
    long = [Entry(b"x", tar.FOLDER, 0o755)]
    long += [Entry(b"x/%d" % number + b"n" * 100, tar.FOLDER, 0o755) for number in range(3)]
    with pytest.raises(UnsafeArchiveError, match="paths"):
        unpack(archive(long), tmp_path / "new")
    with pytest.raises(UnsafeArchiveError, match="paths"):
        archives.Checked(b"new").feed(archive(long))


def test_a_folder_of_a_sandbox_that_looks_like_a_leftover_stops_no_copy(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in (".corral-cp-000000000000", *("d" for _ in range(1500))):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    unpack(archive([Entry(b"x", tar.FOLDER, 0o755)]), tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    remove_tree(tmp_path)
