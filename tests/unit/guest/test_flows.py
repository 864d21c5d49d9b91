"""A command's bytes pass in order, at the pace of who reads them, and end when they should."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_guest import wire
from corral_guest.flows import MAX_PENDING, Inflow, Outflow, Share

from .conftest import Bench, carried

Ends = list[bool]


def outflow(bench: Bench, fd: int) -> tuple[Outflow, Ends]:
    """An outflow of `fd`, and how it ended, once it has."""
    ends: Ends = []
    return Outflow(bench.loop, bench.guest, fd, 2, ends.append, Share()), ends


def fill(fd: int, size: int = 1 << 20) -> int:
    """Write up to size bytes without blocking; returns how many the pipe took."""
    os.set_blocking(fd, False)
    written = 0
    try:
        while written < size:
            written += os.write(fd, bytes(min(65536, size - written)))
    except BlockingIOError:
        pass
    return written


# Out


def test_output_passes_and_ends_with_the_last_writer(bench: Bench) -> None:
    read, write = os.pipe()
    _flow, ends = outflow(bench, read)
    os.write(write, b"hello")
    bench.turn()
    assert carried(bench.heard()) == b"hello"
    assert ends == []
    os.close(write)
    bench.turn()
    assert [type(event) for event in bench.heard()] == [wire.Ended]
    assert ends == [False]


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 70_000), max_size=12))
def test_whatever_sizes_are_written_arrive_in_order(sizes: list[int]) -> None:
    bench = Bench()
    read, write = os.pipe()
    outflow(bench, read)
    os.set_blocking(write, False)
    sent = b"".join(bytes([index % 251]) * size for index, size in enumerate(sizes))
    rest, received = memoryview(sent), b""
    while len(received) < len(sent):
        if rest:
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(write, rest[:65536]) :]
        bench.turn()
        received += carried(bench.heard())
        bench.answer()
    assert received == sent
    os.close(write)
    bench.turn()
    bench.close()


def test_without_credit_nothing_is_read_and_the_command_blocks(bench: Bench) -> None:
    read, write = os.pipe()
    flow, _ends = outflow(bench, read)
    total = 0
    while written := fill(write):
        total += written
        bench.turn(10)
        passed = carried(bench.heard(consume=False))
        if not passed:
            break
    in_the_pipe = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    assert total == wire.WINDOW + in_the_pipe
    bench.host.consumed(2, wire.WINDOW)
    assert any(isinstance(event, wire.Credit) for event in bench.answer())
    bench.turn()
    assert carried(bench.heard()) == b""  # it waits to be told that there is credit
    flow.resume()
    bench.turn(10)
    assert len(carried(bench.heard())) == in_the_pipe
    os.close(write)
    bench.turn()


def test_a_slow_carrier_stops_reading(bench: Bench) -> None:
    read, write = os.pipe()
    flow, _ends = outflow(bench, read)
    bench.guest.send_message(wire.notification("x", {"filler": "x" * MAX_PENDING}))
    os.write(write, b"waits")
    bench.turn(3)
    assert flow.crowded
    assert carried(bench.heard()) == b""
    flow.resume()
    bench.turn()
    assert not flow.crowded
    assert carried(bench.heard()) == b"waits"
    os.close(write)
    bench.turn()


def test_what_was_written_before_the_end_passes_though_others_hold_the_pipe(bench: Bench) -> None:
    read, write = os.pipe()
    held_by_a_daemon = os.dup(write)
    flow, ends = outflow(bench, read)
    os.write(write, b"last words")
    os.close(write)
    flow.finish()
    assert carried(bench.heard()) == b"last words"
    assert ends == [False]
    with pytest.raises(BrokenPipeError):
        os.write(held_by_a_daemon, b"more")
    os.close(held_by_a_daemon)


def test_a_daemon_that_writes_for_ever_does_not_delay_the_end(bench: Bench) -> None:
    """Last output beyond the credit waits for credit; what comes after the end does not count."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    flow, ends = outflow(bench, read)
    last = fill(write)
    flow.finish()
    received = len(carried(bench.heard()))
    assert (received, ends) == (wire.WINDOW, [])
    while not ends:
        fill(write)  # the daemon
        for event in bench.answer():
            if isinstance(event, wire.Credit):
                flow.resume()
        received += len(carried(bench.heard()))
    assert received == last
    os.close(write)


def test_who_reads_no_more_gives_the_command_a_closed_pipe(bench: Bench) -> None:
    read, write = os.pipe()
    flow, ends = outflow(bench, read)
    bench.host.reset(2, "nobody reads it")
    assert any(isinstance(event, wire.Reset) for event in bench.answer())
    flow.give_up()
    assert ends == [True]
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)


def test_an_end_comes_once(bench: Bench) -> None:
    read, write = os.pipe()
    flow, ends = outflow(bench, read)
    os.close(write)
    bench.turn()
    for again in (flow.finish, flow.give_up, flow.resume):
        again()
    bench.turn()
    assert ends == [False]


def test_a_terminals_output_ends_when_its_last_holder_closes_it(bench: Bench) -> None:
    master, slave = os.openpty()
    _flow, ends = outflow(bench, master)
    os.write(slave, b"hello\n")
    os.close(slave)
    bench.turn(2)
    assert carried(bench.heard()) == b"hello\r\n"
    assert ends == [False]


def test_a_terminals_last_output_passes_though_others_hold_it(bench: Bench) -> None:
    master, slave = os.openpty()
    flow, ends = outflow(bench, master)
    os.write(slave, b"bye")
    flow.finish()
    assert carried(bench.heard()) == b"bye"
    assert ends == [False]
    os.close(slave)


# In


def inflow(bench: Bench, fd: int, *, terminal: bool = False) -> Inflow:
    return Inflow(bench.loop, bench.guest, fd, 2, terminal=terminal)


def feed(bench: Bench, flow: Inflow, data: bytes) -> None:
    """The host sends data, the guest hears it."""
    assert bench.host.send(2, data) == len(data)
    for event in bench.answer():
        assert isinstance(event, wire.Data)
        flow.data(event.data)


def test_input_passes_and_its_end_closes_the_pipe(bench: Bench) -> None:
    read, write = os.pipe()
    flow = inflow(bench, write)
    feed(bench, flow, b"hello")
    flow.end()
    assert os.read(read, 100) == b"hello"
    assert os.read(read, 100) == b""
    os.close(read)


def test_input_that_nobody_reads_yet_is_kept_and_grants_no_credit(bench: Bench) -> None:
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    flow = inflow(bench, write)
    feed(bench, flow, bytes(wire.WINDOW))
    bench.heard()
    assert bench.host.credit(2) == 0
    flow.end()
    received = 0
    while data := os.read(read, size):
        received += len(data)
        bench.turn()
    assert received == wire.WINDOW
    bench.heard()
    os.close(read)


def test_input_that_is_read_grants_credit_again(bench: Bench) -> None:
    read, write = os.pipe()
    flow = inflow(bench, write)
    for _ in range(20):
        feed(bench, flow, bytes(60_000))
        assert len(os.read(read, 1 << 20)) == 60_000
        bench.heard()
    flow.close()
    os.close(read)


def test_a_command_that_closes_its_input_stops_the_host(bench: Bench) -> None:
    read, write = os.pipe()
    flow = inflow(bench, write)
    os.close(read)
    feed(bench, flow, b"x")
    assert [type(event) for event in bench.heard()] == [wire.Reset]
    flow.data(b"late")  # what was on its way is dropped
    flow.end()


@pytest.fixture
def terminal(bench: Bench) -> Iterator[tuple[Inflow, int]]:
    """An inflow to a terminal, of whose master the supervisor keeps another copy, and the slave."""
    master, slave = os.openpty()
    mode = termios.tcgetattr(slave)
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    yield inflow(bench, os.dup(master), terminal=True), slave
    os.close(slave)
    os.close(master)


Terminal = tuple[Inflow, int]


def test_the_end_of_input_is_typed_at_the_start_of_a_line(bench: Bench, terminal: Terminal) -> None:
    flow, slave = terminal
    feed(bench, flow, b"line\n")
    flow.end()
    assert os.read(slave, 100) == b"line\n"
    assert os.read(slave, 100) == b""


def test_a_begun_line_is_passed_on_before_the_end(bench: Bench, terminal: Terminal) -> None:
    flow, slave = terminal
    feed(bench, flow, b"begun")
    flow.end()
    assert os.read(slave, 100) == b"begun"
    assert os.read(slave, 100) == b""


def test_no_input_at_all_is_an_end_at_once(terminal: Terminal) -> None:
    flow, slave = terminal
    flow.end()
    assert os.read(slave, 100) == b""


# Among agents


def test_the_flood_of_one_agent_leaves_room_for_what_another_says(bench: Bench) -> None:
    """However many streams it floods: between two drains of the carrier it has its share."""
    loud, quiet = Share(), Share()
    loud.most = quiet.most = 65536
    flows, pipes = [], []
    for number in range(4, 24, 2):
        bench.guest.open(number)
        bench.host.open(number)
    for number in range(2, 24, 2):
        read, write = os.pipe()
        last = number == 22
        share = quiet if last else loud
        flows.append(Outflow(bench.loop, bench.guest, read, number, lambda _: None, share))
        pipes.append(write)
        if last:
            os.write(write, b"me, too")
        else:
            fill(write)
    bench.turn(4)
    assert loud.queued <= 65536 + 65536, "one piece may go over it"
    events = bench.heard()
    assert carried([each for each in events if getattr(each, "stream", 0) == 22]) == b"me, too"
    crowded = [flow for flow in flows if flow.crowded]
    assert len(crowded) >= 9
    for write in pipes:
        os.close(write)
