"""Files of a sandbox: what is asked for arrives, and what a lying guest answers is one error."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import (
    ChannelError,
    CorralError,
    FileDeniedError,
    FileError,
    FileExistsHereError,
    FileMissingError,
    IsFolderError,
    NotFolderError,
    UnsafeArchiveError,
)
from corral.sandbox.files import Executor, Files
from corral_guest import tar
from tests.support.local import Liar, Local


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The folder that stands for a sandbox."""
    folder = tmp_path / "guest"
    folder.mkdir()
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder of this machine."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def files(guest: Path) -> Files:
    return Files(cast(Executor, Local(guest)))


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def lying(stdout: bytes = b"", stderr: bytes = b"", status: int = 0) -> Files:
    return Files(cast(Executor, Liar(stdout, stderr, status)))


async def test_content_of_any_kind_passes_both_ways(files: Files, guest: Path) -> None:
    content = os.urandom(300_000)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 70_001):
            yield content[start : start + 70_001]

    for given_ in (content, bytearray(content), [content[:5], content[5:]], pieces()):
        await files.write("f", given_)
        assert (guest / "f").read_bytes() == content
        (guest / "f").rename(guest / "f2")
    assert await files.read("f2") == content
    assert b"".join([piece async for piece in files.stream("f2")]) == content
    await files.write("f2", b"", mode=0o700)
    assert (await files.stat("f2")).mode == 0o700


async def test_a_file_that_is_too_large_is_refused_before_it_is_held(files: Files) -> None:
    with pytest.raises(FileError, match="more than 1000 bytes") as caught:
        await files.read("/dev/zero", limit=1000)
    assert caught.value.hint


async def test_whoever_stops_waiting_ends_it(guest: Path) -> None:
    local = Local(guest)

    async def slow() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(100)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await Files(cast(Executor, local)).write("f", slow())
    await local.started[0].wait()
    assert "f" not in names(guest)


async def test_a_source_that_fails_leaves_the_old_file(files: Files, guest: Path) -> None:
    (guest / "f").write_bytes(b"old")

    async def failing() -> AsyncIterator[bytes]:
        yield b"new"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await files.write("f", failing())
    assert (guest / "f").read_bytes() == b"old"


async def test_folders_are_made_listed_and_removed(files: Files, guest: Path) -> None:
    await files.mkdir("a/b", parents=True)
    (guest / "a" / "link").symlink_to("b")
    (guest / "a" / os.fsdecode(b"\xff")).write_bytes(b"12")
    found = await files.list("a")
    assert [(each.name, each.kind, each.target) for each in found] == [
        ("b", "folder", ""),
        ("link", "link", "b"),
        ("\udcff", "file", ""),
    ]
    assert (await files.stat("a/link")).kind == "folder"
    assert (await files.stat("a/link", follow=False)).target == "b"
    for way in ("a/.", "a/b/..", "a/link/../", "a/link/../../a"):
        described = await files.stat(way, follow=False)
        assert (described.name, described.kind) == ("a", "folder"), way
    with pytest.raises(FileError, match="more than 2 entries"):
        await files.list("a", limit=2)
    assert await files.exists("a/b")
    await files.remove("a", recursive=True)
    assert not await files.exists("a")


async def test_each_failure_has_its_class(files: Files, guest: Path) -> None:
    (guest / "d" / "sub").mkdir(parents=True)
    (guest / "f").touch()
    for kind, call in (
        (FileMissingError, files.read("none")),
        (IsFolderError, files.read("d")),
        (NotFolderError, files.list("f")),
        (FileExistsHereError, files.mkdir("d")),
        (FileError, files.remove("d")),
        (FileError, files.write("/proc/self/status/x", b"")),
        (FileMissingError, files.write("none/f", b"x" * 1_000_000)),
    ):
        with pytest.raises(kind) as caught:
            await call
        assert caught.value.number
        assert "in the sandbox" in caught.value.message
    if os.getuid():
        with pytest.raises(FileDeniedError):
            await files.write("/etc/passwd", b"")


def record(**changes: object) -> bytes:
    whole = {"name": "n", "kind": "file", "mode": 0o644, "size": 1, "time": 1, "target": ""}
    return json.dumps({**whole, **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "listing",
    [
        b"\n",
        b"{}\n",
        b"[1]\n",
        record()[:-1],
        record() + record(),
        record(name=""),
        record(name=".."),
        record(name="a/b"),
        record(name="a\0"),
        record(name="n" * 256),
        record(name="\u1234"),
        record(name=None),
        record(kind="door"),
        record(mode=-1),
        record(mode=1 << 12),
        record(size=-1),
        record(size=1 << 63),
        record(size=1.5),
        record(time=1 << 70),
        record(target="x"),
        record(kind="link", target="x" * 5000),
        record(more=1),
        b"x" * 200_000,
        b"\xff\xfe\n",
    ],
)
async def test_a_listing_that_makes_no_sense_is_one_error(listing: bytes) -> None:
    with pytest.raises(ChannelError):
        await lying(listing).list("d")


@given(st.binary(max_size=300), st.binary(max_size=100), st.integers(0, 255))
@settings(max_examples=60)
def test_noise_is_an_error_of_ours_or_an_answer(out: bytes, err: bytes, status: int) -> None:
    async def ask() -> None:
        for call in (lying(out, err, status).list("d"), lying(out, err, status).stat("f")):
            try:
                await call
            except CorralError as error:
                assert type(error) in (ChannelError, FileError) or isinstance(error, FileError)

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        (b"", 1),
        (b"", 2),
        (b"", 3),
        (b"", 77),
        (b'{"errno": 2}\n', 0),
        (b'{"errno": 2}\n{"errno": 2}\n', 1),
        (b'{"errno": "2"}\n', 1),
        (b'{"errno": 99999}\n', 1),
        (b"Traceback\n", 1),
        (b"x" * 100_000, 1),
    ],
)
async def test_a_failure_that_makes_no_sense_is_one_error(stderr: bytes, status: int) -> None:
    with pytest.raises(ChannelError):
        await lying(b"content", stderr, status).read("f")


async def test_a_guests_words_drive_no_terminal() -> None:
    path = "\x1b[2J" * 3
    with pytest.raises(FileMissingError) as caught:
        await lying(b"", json.dumps({"errno": 2, "path": path}).encode(), 1).read("f")
    assert "\x1b" not in caught.value.message
    with pytest.raises(FileError) as other:
        await lying(b"", json.dumps({"broken": path}).encode(), 2).read("f")
    assert "\x1b" not in other.value.message
    with pytest.raises(FileError, match="signal 9"):
        await lying(b"part", b"", 137).read("f")


# Copies


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder."""
    return {
        str(each.relative_to(folder)): (
            stat.S_IMODE(each.lstat().st_mode),
            each.readlink() if each.is_symlink() else each.is_file() and each.read_bytes(),
            each.is_symlink() or int(each.stat().st_mtime),
        )
        for each in folder.rglob("*")
    }


def plant(folder: Path) -> None:
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "data").write_bytes(os.urandom(700_000))
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "sub" / "up").symlink_to("../run")
    (folder / os.fsdecode(b"\xe9 " + b"n" * 150)).write_bytes(b"odd")
    os.utime(folder / "run", (1, 999))
    (folder / "sub" / "empty").chmod(0o555)


async def test_folders_are_copied_both_ways_as_they_are(
    files: Files, guest: Path, here: Path
) -> None:
    (here / "tree").mkdir()
    plant(here / "tree")
    os.mkfifo(here / "tree" / "pipe")
    copied = await files.upload(here / "tree", "up")
    assert (copied.files, copied.left_out) == (3, ("up/pipe",))
    (here / "tree" / "pipe").unlink()
    assert tree(guest / "up") == {**tree(here / "tree")}
    back = await files.download("up", here / "back")
    assert (back.files, back.size) == (3, copied.size)
    assert tree(here / "back") == tree(here / "tree")
    assert names(here) == {"tree", "back"}


async def test_a_single_file_replaces_what_is_there(files: Files, guest: Path, here: Path) -> None:
    (guest / "f").write_bytes(b"new")
    (guest / "f").chmod(0o640)
    (here / "secret").write_bytes(b"kept")
    (here / "f").symlink_to("secret")
    await files.download("f", here / "f")
    assert (here / "f").read_bytes() == b"new" and not (here / "f").is_symlink()
    assert (here / "secret").read_bytes() == b"kept"
    await files.upload(here / "secret", "f")
    assert (guest / "f").read_bytes() == b"kept"
    await files.upload(here / "secret", f"{guest}/abs")
    assert (guest / "abs").read_bytes() == b"kept"


async def test_a_folder_that_is_there_is_filled(files: Files, guest: Path, here: Path) -> None:
    (guest / "d" / "sub").mkdir(parents=True)
    (guest / "d" / "sub" / "new").write_bytes(b"new")
    (here / "d" / "sub").mkdir(parents=True)
    (here / "d" / "sub" / "old").write_bytes(b"old")
    await files.download("d", here / "d")
    assert {each.name for each in (here / "d" / "sub").iterdir()} == {"new", "old"}


async def test_a_file_in_the_way_of_a_folder_changes_nothing(
    files: Files, guest: Path, here: Path
) -> None:
    (guest / "d" / "b").mkdir(parents=True)
    (guest / "d" / "a").touch()
    (here / "d").mkdir()
    (here / "d" / "b").touch()
    with pytest.raises(NotFolderError):
        await files.download("d", here / "d")
    assert {each.name for each in (here / "d").iterdir()} == {"b"}
    (guest / "f").touch()
    with pytest.raises(IsFolderError):
        await files.download("f", here / "d")


async def test_links_are_copied_or_followed(files: Files, guest: Path, here: Path) -> None:
    (guest / "f").write_bytes(b"f")
    (guest / "l").symlink_to("f")
    with pytest.raises(UnsafeArchiveError, match="leads out"):
        await files.download("l", here / "l")
    await files.download("l", here / "l", follow=True)
    assert (here / "l").read_bytes() == b"f" and not (here / "l").is_symlink()
    (here / "m").symlink_to("l")
    await files.upload(here / "m", "m")
    assert (guest / "m").is_symlink()
    await files.upload(here / "m", "m2", follow=True)
    assert (guest / "m2").read_bytes() == b"f"


async def test_what_cannot_be_read_or_written_here_is_told(files: Files, here: Path) -> None:
    with pytest.raises(FileMissingError, match="on this machine"):
        await files.upload(here / "none", "x")
    with pytest.raises(FileMissingError, match="on this machine"):
        await files.download(".", here / "none" / "x")
    with pytest.raises(FileMissingError, match="in the sandbox"):
        await files.download("none", here / "x")
    assert names(here) == set()


async def test_archives_come_out_and_go_in(files: Files, guest: Path) -> None:
    (guest / "d").mkdir()
    plant(guest / "d")
    packed = b"".join([piece async for piece in files.pack("d", name="named")])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == {"named"}
    await files.mkdir("e")
    await files.unpack("e", packed)
    assert tree(guest / "e" / "named") == tree(guest / "d")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
async def test_archives_of_every_kind_go_in(files: Files, guest: Path, mode: Any) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name in ("./", "./a/", "/a/f"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.REGTYPE if name.endswith("f") else tarfile.DIRTYPE
            member.size, member.mode = 3 * member.isreg(), 0o4755
            archive.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("hard")
        link.type, link.linkname = tarfile.LNKTYPE, "./a/f"
        archive.addfile(link)
    buffer.seek(0)
    await files.unpack_from(".", buffer)
    assert (guest / "a" / "f").read_bytes() == (guest / "hard").read_bytes() == b"abc"
    assert stat.S_IMODE((guest / "a" / "f").stat().st_mode) == 0o755
    for noise in (b"noise" * 1000, b"\x1f\x8bnoise"):
        with pytest.raises(FileError, match="cannot be read"):
            await files.unpack_from(".", io.BytesIO(noise))


async def test_an_archive_that_stops_is_an_error() -> None:
    whole = tar.header(tar.Entry(b"x", tar.FILE, 0o644, 5)) + b"12345" + tar.padding(5) + tar.END
    for end in (0, 512, 700, 1024, len(whole) - 1):
        with pytest.raises((ChannelError, UnsafeArchiveError)):
            async for _ in lying(whole[:end]).pack("f"):
                pass
