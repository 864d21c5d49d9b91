"""Logs are bounded, survive a full disk, and can be read while they are written."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from corral.journal import Journal, contents, older, tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def kept(path: Path) -> bytes:
    return b"".join(contents(older(path), path))


async def test_it_grows_over_restarts(path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        journal = Journal(path)
        journal.write(text)
        journal.close()
    assert kept(path) == b"one\ntwo\n"


async def test_it_never_has_more_than_twice_its_limit(path: Path) -> None:
    journal = Journal(path, limit=1000)
    for number in range(500):
        journal.write(b"%08d\n" % number)
        assert len(kept(path)) <= 2000
    journal.close()
    lines = kept(path).split()
    assert lines[-1] == b"00000499"
    assert lines == sorted(lines)
    assert len(lines) > 100


async def test_who_follows_gets_all_in_order_to_the_end(path: Path) -> None:
    journal = Journal(path, limit=300)
    journal.write(b"000000\n")
    heard = b""

    async def follow() -> None:
        nonlocal heard
        async for data in journal.follow():
            heard += data

    task = asyncio.ensure_future(follow())
    for number in range(1, 200):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        journal.write(b"%06d\n" % number)
    journal.close()
    await task
    assert heard == b"".join(b"%06d\n" % number for number in range(200))


async def test_who_is_too_slow_misses_the_oldest_and_gets_the_newest(path: Path) -> None:
    journal = Journal(path, limit=100)
    follower = journal.follow()
    journal.write(b"first\n")
    assert await anext(follower) == b"first\n"
    for number in range(100):
        journal.write(b"%06d\n" % number)
    journal.close()
    rest = b"".join([data async for data in follower])
    assert rest.endswith(b"000099\n")
    assert len(rest) <= 200


async def test_a_disk_that_is_full_is_noted_and_ends_nothing(path: Path) -> None:
    path.symlink_to("/dev/full")  # noqa: ASYNC240
    journal = Journal(path)
    assert journal.failure is not None, "a link is not followed"
    journal.write(b"lost")
    journal.close()


async def test_a_write_that_fails_is_noted(path: Path) -> None:
    journal = Journal(path)
    journal._path = Path("/proc/nowhere")  # what it turns to cannot be made
    journal._limit = 1
    journal.write(b"one")
    journal.write(b"two")
    assert journal.failure is not None
    journal.write(b"three")
    journal.close()


async def test_an_empty_log_is_followed_too(path: Path) -> None:
    journal = Journal(path)
    follower = journal.follow()
    first = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    journal.write(b"x")
    assert await first == b"x"
    journal.close()
    assert [data async for data in follower] == []


def test_who_follows_a_log_that_is_removed_comes_to_an_end(tmp_path: Path) -> None:
    """`corral net log app -f`, and then `corral rm app`."""
    folder = tmp_path / "logs" / "app"
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(b"one\n")
    seen: list[bytes] = []
    begun, ended = threading.Event(), threading.Event()

    def follow() -> None:
        for piece in tail(folder / "log", follow=True):
            seen.append(piece)
            begun.set()
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    assert begun.wait(10)
    shutil.rmtree(folder)
    assert ended.wait(10)
    assert seen == [b"one\n"]


def test_a_log_that_somebody_removes_is_begun_anew(path: Path) -> None:
    journal = Journal(path, limit=100)
    journal.write(b"x" * 90)
    path.unlink()
    journal.write(b"y" * 90)
    journal.write(b"z" * 9)
    journal.close()
    assert kept(path) == b"y" * 90 + b"z" * 9 and journal.failure is None


async def test_two_who_write_one_log_lose_nothing_when_both_turn(path: Path) -> None:
    first, second = Journal(path, limit=20), Journal(path, limit=20)
    for journal, line in ((first, b"a" * 15), (second, b"b" * 5), (first, b"c"), (second, b"d")):
        journal.write(line + b"\n")
    first.close()
    second.close()
    kept = b"".join(contents(older(path), path)).split()
    assert kept == [b"a" * 15, b"b" * 5, b"c", b"d"]
