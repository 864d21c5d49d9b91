"""What may hang is done by processes of their own, and nobody waits longer than there is need."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from corral_guest import apart, boot, fresh, linux

from .conftest import Bench


def until(bench: Bench, done: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        bench.turn()
        time.sleep(0.005)


def test_what_follows_is_done_when_the_work_has_ended_and_not_before(
    bench: Bench, tmp_path: Path
) -> None:
    order: list[str] = []
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    apart.run(bench.loop, lambda: fifo.read_bytes(), lambda: order.append("then"))
    bench.turn(5)
    assert order == []
    fifo.write_bytes(b"go")
    until(bench, lambda: order)
    assert order == ["then"]


def test_work_that_fails_ends_too(bench: Bench) -> None:
    done: list[int] = []
    apart.run(bench.loop, lambda: 1 // 0, lambda: done.append(1))
    until(bench, lambda: done)


def test_work_holds_none_of_this_process_s_descriptors_open(bench: Bench, tmp_path: Path) -> None:
    read, write = os.pipe()
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    done: list[int] = []
    apart.run(bench.loop, lambda: fifo.read_bytes(), lambda: done.append(1))
    os.close(write)
    assert os.read(read, 1) == b"", "the child has no end of it"
    fifo.write_bytes(b"")
    until(bench, lambda: done)
    os.close(read)


def test_without_room_for_a_process_the_work_is_done_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> int:
        raise BlockingIOError(11, "no more processes")

    monkeypatch.setattr(os, "fork", none)
    order: list[str] = []
    apart.run(bench.loop, lambda: order.append("work"), lambda: order.append("then"))
    assert order == ["work", "then"]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """In place of a control group."""
    (tmp_path / "cgroup.procs").touch()
    return str(tmp_path)


def test_commands_wait_until_the_caches_are_empty_each_for_itself(
    bench: Bench, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remounted = os.path.join(folder, "remounted")  # noqa: PTH118

    def mount(_source: str, _target: str, _kind: str | None, _flags: int = 0) -> None:
        with open(remounted, "a") as file:
            file.write("x")

    # The child has a copy of this.
    monkeypatch.setattr(linux, "mount", mount)
    monkeypatch.setattr(linux, "set_name", lambda _name: None)
    monkeypatch.setattr(boot, "mounts_below", lambda path: [path])
    real = boot.write
    monkeypatch.setattr(
        boot, "write", lambda path, text: None if path.startswith("/proc") else real(path, text)
    )
    each = fresh.Fresh(bench.loop, folder, folder)
    called: list[int] = []
    each.then(lambda: called.append(Path(remounted).stat().st_size))
    until(bench, lambda: called, fresh.LIFETIME * 0.8)
    each.then(lambda: called.append(Path(remounted).stat().st_size))
    until(bench, lambda: len(called) == 2)
    assert called == [1, 2]
    each.close()


class Stuck(fresh.Fresh):
    """Its process never answers."""

    def __init__(self, bench: Bench) -> None:
        self._loop = bench.loop
        self._asked = []
        self._socket, self.process = socket.socketpair()
        self._socket.setblocking(False)
        bench.loop.watch(self._socket.fileno(), 1, lambda _events: self._heard())


def test_who_waits_for_a_file_server_that_hangs_waits_no_longer_than_things_are_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "LIFETIME", 0.1)
    each = Stuck(bench)
    called: list[str] = []
    each.then(lambda: called.append("first"))
    each.then(lambda: called.append("second"))
    bench.turn()
    assert called == []
    until(bench, lambda: len(called) == 2, 5)
    each.process.send(b"xx")  # late
    bench.turn(2)
    each.then(lambda: called.append("third"))
    bench.turn()
    assert called == ["first", "second"]
    each.process.close()  # killed
    until(bench, lambda: len(called) == 3, 5)
    each.then(lambda: called.append("fourth"))
    until(bench, lambda: len(called) == 4, 5)
    assert called == ["first", "second", "third", "fourth"]
    each.close()


def test_at_its_end_nobody_is_left_waiting(bench: Bench) -> None:
    each = Stuck(bench)
    called: list[int] = []
    each.then(lambda: called.append(1))
    each.close()
    assert called == [1]
    each.process.close()
