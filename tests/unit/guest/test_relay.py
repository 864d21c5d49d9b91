"""A connection's bytes pass both ways; each way ends by itself, or both by a reset."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_guest import wire
from corral_guest.flows import MAX_PENDING, Share
from corral_guest.relay import Relay

from .conftest import Bench, carried


class Line:
    """A relay of stream 2 over a TCP connection of loopback: a reset is one there."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.program = socket.create_connection(server.getsockname())
            ours, _peer = server.accept()
        self.program.settimeout(10)
        self.ends: list[bool] = []
        self.relay = Relay(bench.loop, bench.guest, ours, 2, self._end, Share())

    def _end(self) -> None:
        self.ends.append(True)

    def from_host(self) -> None:
        """What the host has sent arrives."""
        for event in self.bench.answer():
            match event:
                case wire.Data():
                    self.relay.data(event.data)
                case wire.Ended():
                    self.relay.end()
                case wire.Reset():
                    self.relay.abort()
                case wire.Credit():
                    self.relay.resume()

    def was_reset(self) -> bool:
        """Whether the program sees a reset."""
        try:
            while self.program.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return False


@pytest.fixture
def line(bench: Bench) -> Iterator[Line]:
    made = Line(bench)
    yield made
    made.program.close()
    made.relay.abort()


def test_bytes_pass_in_both_directions(bench: Bench, line: Line) -> None:
    line.program.sendall(b"question")
    bench.turn()
    assert carried(bench.heard()) == b"question"
    bench.host.send(2, b"answer")
    line.from_host()
    assert line.program.recv(100) == b"answer"
    assert line.ends == []


def test_the_program_ends_its_half_and_reads_on(bench: Bench, line: Line) -> None:
    line.program.shutdown(socket.SHUT_WR)
    bench.turn()
    assert [type(event) for event in bench.heard()] == [wire.Ended]
    bench.turn(3)  # nothing is left to be ready for
    bench.host.send(2, b"late")
    bench.host.end(2)
    line.from_host()
    assert line.program.recv(100) == b"late"
    assert line.program.recv(100) == b""
    assert line.ends == [True]
    assert not bench.guest.open_streams


def test_the_host_ends_its_half_and_reads_on(bench: Bench, line: Line) -> None:
    bench.host.end(2)
    line.from_host()
    assert line.program.recv(100) == b""
    line.program.sendall(b"more")
    bench.turn()
    assert carried(bench.heard()) == b"more"
    line.program.close()
    bench.turn()
    assert [type(event) for event in bench.heard()] == [wire.Ended]
    assert line.ends == [True]


def test_a_reset_of_the_hosts_is_one_for_the_program(bench: Bench, line: Line) -> None:
    bench.host.reset(2, "denied")
    line.from_host()
    assert line.was_reset()
    assert line.ends == [True]


@pytest.mark.parametrize("reading", [True, False])
def test_a_reset_of_the_programs_is_one_for_the_host(
    bench: Bench, line: Line, reading: bool
) -> None:
    if not reading:  # because it has ended its half
        line.program.shutdown(socket.SHUT_WR)
        bench.turn()
        bench.heard()
    line.program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.program.close()
    bench.turn()
    assert [type(event) for event in bench.heard()] == [wire.Reset]
    assert line.ends == [True]


def test_who_reads_nothing_is_sent_no_more_than_was_granted(bench: Bench, line: Line) -> None:
    sent = 0
    while size := bench.host.send(2, bytes(65536)):
        sent += size
        line.from_host()
    first = sent
    received = 0
    while received < first:
        received += len(line.program.recv(65536))
        bench.turn()
        bench.heard()
    assert received == first
    assert bench.host.credit(2) > 0


def test_without_credit_the_program_waits(bench: Bench, line: Line) -> None:
    line.program.setblocking(False)
    written = 0
    received = b""
    for _ in range(200):
        try:
            written += line.program.send(b"x" * 65536)
        except BlockingIOError:
            break
        bench.turn()
        received += carried(bench.heard(consume=False))
    assert len(received) == wire.WINDOW
    bench.host.consumed(2, len(received))
    line.from_host()
    while len(received) < written:
        bench.turn()
        received += carried(bench.heard())
        line.from_host()
    assert len(received) == written


def test_what_was_written_before_a_close_is_not_lost_for_want_of_credit(
    bench: Bench, line: Line
) -> None:
    """Both directions are over then, which the kernel goes on telling: that must not be a loop."""
    bench.host.end(2)
    line.from_host()
    line.program.settimeout(10)
    received = 0
    while received < wire.WINDOW:
        line.program.sendall(b"x" * 32768)
        bench.turn()
        received += len(carried(bench.heard(consume=False)))
    line.program.sendall(b"rest")
    line.program.close()
    bench.turn(4)
    assert line.ends == []
    bench.host.consumed(2, received)
    line.from_host()
    bench.turn(3)
    events = bench.heard()
    assert carried(events) == b"rest"
    assert isinstance(events[-1], wire.Ended)
    assert line.ends == [True]


def test_it_stops_reading_when_the_carrier_takes_no_more(bench: Bench, line: Line) -> None:
    bench.guest.open(4)
    bench.guest.send(4, bytes(wire.WINDOW))
    bench.guest.open(6)
    bench.guest.send(6, bytes(1000))
    assert bench.guest.pending_output > MAX_PENDING
    line.program.sendall(b"waits")
    bench.turn(3)
    assert line.relay.crowded
    bench.guest.take_output()
    line.relay.resume()
    bench.turn()
    assert bench.guest.pending_output < 100
    assert b"waits" in bench.guest.take_output()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["program", "host"]), st.integers(1, 90_000)),
        st.tuples(st.sampled_from(["program reads", "host reads", "turn"]), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(actions=ACTIONS, program_first=st.booleans())
def test_whatever_is_said_in_whichever_order_arrives(
    actions: list[tuple[str, int]], program_first: bool
) -> None:
    """Both sides talk and listen as they like, then end, one after the other."""
    bench = Bench()
    line = Line(bench)
    line.program.setblocking(False)
    sent = {"program": bytearray(), "host": bytearray()}
    heard = {"program": bytearray(), "host": bytearray()}

    def say(who: str, size: int) -> None:
        data = bytes([len(sent[who]) % 251]) * size
        try:
            taken = line.program.send(data) if who == "program" else bench.host.send(2, data)
        except BlockingIOError:
            return
        sent[who] += data[:taken]

    def listen() -> None:
        with contextlib.suppress(BlockingIOError):
            heard["program"] += line.program.recv(1 << 20)

    for action, size in actions:
        match action:
            case "program reads":
                listen()
            case "host reads":
                heard["host"] += carried(bench.heard())
            case "turn":
                bench.turn()
            case who:
                say(who, size)
        line.from_host()
    if program_first:
        line.program.shutdown(socket.SHUT_WR)
    bench.host.end(2)
    if not program_first:
        line.program.shutdown(socket.SHUT_WR)
    for _ in range(200):
        bench.turn()
        heard["host"] += carried(bench.heard())
        line.from_host()
        listen()
        if line.ends and heard == {"program": sent["host"], "host": sent["program"]}:
            break
    assert line.ends == [True]
    assert heard["host"] == sent["program"]
    assert heard["program"] == sent["host"]
    assert not bench.guest.open_streams
    line.program.close()
    bench.close()
