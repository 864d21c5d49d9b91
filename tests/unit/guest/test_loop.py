"""The supervisor's event loop."""

from __future__ import annotations

import os
import time

from corral_guest.loop import READ, WRITE, Loop

from .conftest import Bench


def test_who_is_ready_is_called_with_what_is_ready(bench: Bench) -> None:
    read, write = os.pipe()
    called: list[int] = []
    bench.loop.watch(read, READ, called.append)
    bench.turn()
    assert called == []
    os.write(write, b"x")
    bench.turn(2)  # level-triggered: again, as nobody has read
    assert called == [READ, READ]
    bench.loop.forget(read)
    bench.turn()
    assert called == [READ, READ]
    os.close(read)
    os.close(write)


def test_a_watch_replaces_the_one_before(bench: Bench) -> None:
    read, write = os.pipe()
    called: list[str] = []
    bench.loop.watch(write, WRITE, lambda _events: called.append("first"))
    bench.loop.watch(write, WRITE, lambda _events: called.append("second"))
    bench.turn()
    bench.loop.watch(write, READ, lambda _events: called.append("third"))
    bench.turn()
    assert called == ["second"]
    bench.loop.forget(write)
    os.close(read)
    os.close(write)


def test_forgetting_what_is_not_watched_is_no_error() -> None:
    Loop().forget(999)


def test_who_was_forgotten_in_the_same_turn_is_not_called(bench: Bench) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def forget_all(_events: int) -> None:
        called.append(1)
        for read, _write in pipes:
            bench.loop.forget(read)

    for read, write in pipes:
        os.write(write, b"x")
        bench.loop.watch(read, READ, forget_all)
    bench.turn()
    assert called == [1]
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_each_turn_ends_with_what_is_due_after_it() -> None:
    loop = Loop()
    ready = os.eventfd(1)
    order: list[str] = []

    def after() -> None:
        order.append("after")
        if len(order) == 4:
            loop.stop()

    loop.watch(ready, READ, lambda _events: order.append("callback"))
    loop.run(after)
    assert order == ["callback", "after"] * 2
    os.close(ready)


def test_what_is_for_later_is_called_once_and_in_time(bench: Bench) -> None:
    called: list[str] = []
    bench.loop.later(0.05, lambda: called.append("second"))
    bench.loop.later(0.0, lambda: called.append("first"))
    bench.turn()
    assert called == ["first"]
    assert 0 < (bench.loop._wait() or 0) <= 0.05
    time.sleep(0.06)
    bench.turn(3)
    assert called == ["first", "second"]
    assert bench.loop._wait() is None


def test_what_is_for_later_and_what_comes_again_do_not_hinder_each_other(bench: Bench) -> None:
    called: list[str] = []
    bench.loop.every(100, lambda: called.append("tick"))
    bench.loop.later(0.0, lambda: bench.loop.later(0.0, lambda: called.append("later")))
    bench.turn(3)
    assert called == ["later"]
    assert 90 < (bench.loop._wait() or 0) <= 100
