"""What the protocol core promises: frames, credit, streams, and nothing but ProtocolError."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_guest import wire
from corral_guest.wire import Connection, Credit, Data, Ended, Message, ProtocolError, Reset


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">III", kind << 24, stream, len(payload)) + payload


def pair(*streams: int) -> tuple[Connection, Connection]:
    ends = Connection(), Connection()
    for number in streams:
        for end in ends:
            end.open(number)
    return ends


def deliver(source: Connection, target: Connection) -> list[wire.Event]:
    return list(target.receive(source.take_output()))


def refused(data: bytes, *streams: int) -> str:
    connection = Connection()
    for number in streams:
        connection.open(number)
    with pytest.raises(ProtocolError) as error:
        list(connection.receive(data))
    return str(error.value)


def carried(event: wire.Event) -> bytes:
    """The bytes of an event that must be Data."""
    assert isinstance(event, Data)
    return event.data


# Everything arrives, in order, however it is cut


@given(st.lists(st.integers(1, 5000), max_size=60), st.data())
def test_what_is_sent_arrives_however_the_carrier_cuts_it(
    sizes: list[int], data: st.DataObject
) -> None:
    host, guest = pair(2)
    host.send_message(wire.notification("hello", {"n": 1}))
    sent = bytes(range(256)) * 200
    assert host.send(2, sent) == len(sent)
    host.end(2)
    stream = host.take_output()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    events: list[wire.Event] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += guest.receive(stream[start:stop])
    assert isinstance(events[0], Message)
    assert b"".join(carried(e) for e in events if isinstance(e, Data)) == sent
    assert isinstance(events[-1], Ended)


def test_single_bytes_arrive_too() -> None:
    host, guest = pair(2)
    host.send(2, b"x" * 40000)
    events = [e for byte in host.take_output() for e in guest.receive(bytes([byte]))]
    assert sum(len(carried(e)) for e in events) == 40000


def test_a_full_frame_fits_one_write_to_a_virtio_port() -> None:
    assert wire.HEADER + wire.MAX_DATA == 32768


def test_a_stream_opened_while_handling_a_message_is_in_time_for_its_data() -> None:
    host, guest = Connection(), Connection()
    host.open(2)
    host.send_message(wire.request(1, "exec", {"stream": 2}))
    host.send(2, b"input")
    seen = []
    for event in guest.receive(host.take_output()):
        if isinstance(event, Message):
            guest.open(2)
        else:
            seen.append(carried(event))
    assert seen == [b"input"]


def test_frames_of_a_loop_left_early_come_with_the_next_call() -> None:
    host, guest = pair(2)
    host.send(2, b"a" * 40000)
    host.send(2, b"b")
    for _ in guest.receive(host.take_output()):
        break
    assert b"".join(carried(e) for e in guest.receive(b""))[-1:] == b"b"


# Credit


def test_no_more_is_sent_than_was_granted_and_consuming_grants_more() -> None:
    host, guest = pair(2)
    blob = bytes(wire.WINDOW + 1)
    assert host.send(2, blob) == wire.WINDOW
    assert host.credit(2) == 0 == host.send(2, b"more")
    for event in deliver(host, guest):
        guest.consumed(2, len(carried(event)))
    assert [type(e) for e in deliver(guest, host)] == [Credit]  # in halves, not for every frame
    assert host.credit(2) >= wire.WINDOW // 2


def test_a_gigabyte_passes_in_bounded_memory() -> None:
    host, guest = pair(2)
    blob, passed = bytes(1 << 16), 0
    tracemalloc.start()
    try:
        while passed < 1 << 30:
            host.send(2, blob)
            for event in deliver(host, guest):
                passed += len(carried(event))
                guest.consumed(2, len(carried(event)))
            deliver(guest, host)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2 * wire.WINDOW)), max_size=40))
def test_credit_is_never_lost_or_made(steps: list[tuple[bool, int]]) -> None:
    host, guest = pair(2)
    unread = 0
    for sending, size in steps:
        if sending:
            host.send(2, bytes(size))
        else:
            eaten = min(size, unread)
            guest.consumed(2, eaten)
            unread -= eaten
        unread += sum(len(carried(e)) for e in deliver(host, guest))
        deliver(guest, host)
        assert unread <= wire.WINDOW
        assert wire.WINDOW // 2 < host.credit(2) + unread + 1 <= wire.WINDOW + 1


def test_consuming_what_was_not_delivered_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="consumed"):
        pair(2)[0].consumed(2, 1)


# Streams close


def test_a_stream_closes_when_both_sides_ended_it_and_its_number_is_free() -> None:
    host, guest = pair(2)
    host.end(2)
    assert [type(e) for e in deliver(host, guest)] == [Ended]
    assert guest.send(2, b"the answer") == 10
    guest.end(2)
    assert [type(e) for e in deliver(guest, host)] == [Data, Ended]
    assert not host.is_open(2) and not guest.is_open(2)
    with pytest.raises(wire.StreamError):
        host.send(2, b"late")
    host.open(2)


def test_credit_that_crosses_with_the_last_end_is_no_fault() -> None:
    host, guest = pair(2)
    guest.send(2, bytes(wire.WINDOW))
    events = deliver(guest, host)
    host.end(2)
    guest.end(2)
    for event in events:
        host.consumed(2, len(carried(event)))
    assert [type(e) for e in deliver(host, guest)] == [Ended]
    assert [type(e) for e in deliver(guest, host)] == [Ended]


def test_data_that_crosses_with_a_reset_is_dropped_and_the_number_freed() -> None:
    host, guest = pair(2)
    guest.send(2, b"on its way")
    guest.end(2)
    host.reset(2, "enough")
    assert deliver(guest, host) == []
    (event,) = deliver(host, guest)
    assert isinstance(event, Reset) and event.reason == "enough"
    with pytest.raises(wire.StreamError):
        host.open(2)  # not before the answer
    assert deliver(guest, host) == []
    host.open(2)


def test_resets_that_cross_close_the_stream_on_both_sides() -> None:
    host, guest = pair(2)
    host.reset(2)
    guest.reset(2)
    first, second = host.take_output(), guest.take_output()
    assert [*guest.receive(first), *host.receive(second)] == []
    assert deliver(host, guest) == deliver(guest, host) == []
    host.open(2)
    guest.open(2)


def test_a_reset_after_both_ends_crossed_is_answered() -> None:
    host, guest = pair(2)
    host.end(2)
    guest.end(2)
    host.reset(2)
    deliver(host, guest)
    assert deliver(guest, host) == []
    host.open(2)


def test_a_stream_that_the_peer_never_registered_is_got_rid_of_by_a_reset() -> None:
    host, guest = Connection(), Connection()
    host.open(2)
    host.reset(2)
    assert deliver(host, guest) == deliver(guest, host) == []
    host.open(2)


def test_only_so_many_streams_are_open_at_once() -> None:
    connection = Connection(max_streams=2)
    connection.open(2)
    connection.open(4)
    with pytest.raises(wire.StreamError):
        connection.open(6)
    connection.reset(2)
    with pytest.raises(wire.StreamError):
        connection.open(6)  # the peer has not answered


# Hostile peers


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("unknown kind", frame(7, 0)),
        ("kind zero", frame(0, 0)),
        ("padding that is not zero", b"\x02\x00\x00\x01" + b"\0\0\0\2" + b"\0\0\0\1x"),
        ("control on a stream", frame(wire.CONTROL, 2, b"{}")),
        ("data too long, before it is there", struct.pack(">III", 2 << 24, 2, wire.MAX_DATA + 1)),
        ("control too long", struct.pack(">III", 1 << 24, 0, wire.MAX_CONTROL + 1)),
        ("four gigabytes", struct.pack(">III", 1 << 24, 0, 0xFFFFFFFF)),
        ("end with a payload", frame(wire.END, 2, b"x")),
        ("empty data", frame(wire.DATA, 2)),
        ("data for an unknown stream", frame(wire.DATA, 4, b"x")),
        ("data for stream 0", frame(wire.DATA, 0, b"x")),
        ("end of an unknown stream", frame(wire.END, 4)),
        ("two ends", frame(wire.END, 2) * 2),
        ("data after the end", frame(wire.END, 2) + frame(wire.DATA, 2, b"x")),
        ("data beyond the credit", frame(wire.DATA, 2, bytes(wire.MAX_DATA)) * 9),
        ("credit never used", frame(wire.CREDIT, 2, b"\0\0\0\1")),
        ("credit overflow", frame(wire.CREDIT, 2, b"\xff\xff\xff\xff")),
        ("no credit", frame(wire.CREDIT, 2, b"\0\0\0\0")),
        ("short credit", frame(wire.CREDIT, 2, b"\1")),
        ("credit for an unknown stream", frame(wire.CREDIT, 4, b"\0\0\0\1")),
        ("reset of stream 0", frame(wire.RESET, 0)),
        ("reset that is no text", frame(wire.RESET, 2, b"\xff")),
        ("reset with an essay", frame(wire.RESET, 2, bytes(wire.MAX_REASON + 1))),
        ("an answer to no reset", frame(wire.GONE, 2)),
        ("an answer for an unknown stream", frame(wire.GONE, 4)),
        ("data after a reset", frame(wire.RESET, 2) + frame(wire.DATA, 2, b"x")),
    ],
)
def test_malformed_frames_end_the_connection(what: str, data: bytes) -> None:
    assert refused(data, 2), what


def test_a_broken_connection_stays_broken_and_keeps_nothing() -> None:
    connection = Connection()
    for _ in range(100):
        with pytest.raises(ProtocolError):
            list(connection.receive(frame(9, 0) + bytes(100_000)))
    assert len(connection._in) == 0


def test_a_peer_that_resets_without_reading_is_cut_off() -> None:
    connection = Connection(max_output=1 << 16)
    storm = b"".join(frame(wire.RESET, number) for number in range(1, 10_000))
    with pytest.raises(ProtocolError, match="does not read"):
        list(connection.receive(storm))
    assert connection.pending_output <= (1 << 16) + wire.HEADER


@given(st.binary(max_size=3000), st.integers(1, 64))
def test_garbage_raises_nothing_but_protocol_error(garbage: bytes, step: int) -> None:
    connection = Connection()
    connection.open(1)
    try:
        for start in range(0, len(garbage), step):
            list(connection.receive(garbage[start : start + step]))
    except ProtocolError:
        pass


frames = st.builds(
    frame,
    st.integers(1, 6),
    st.integers(0, 4),
    st.one_of(st.just(b""), st.binary(max_size=40), st.just(b"{}"), st.just(b"\0\0\0\1")),
)


@given(st.lists(frames, max_size=60), st.lists(st.integers(0, 4), max_size=6))
def test_any_order_of_frames_leaves_state_bounded(script: list[bytes], resets: list[int]) -> None:
    connection = Connection()
    connection.open(1)
    connection.open(2)
    for number in resets:
        connection.reset(number)
    try:
        for data in script:
            for event in connection.receive(data):
                if isinstance(event, Data):
                    connection.consumed(event.stream, len(carried(event)))
    except ProtocolError:
        pass
    assert len(connection._streams) <= 2
    assert connection.pending_output <= (len(script) + len(resets)) * (wire.HEADER + 4)


# Output


def test_write_to_drops_exactly_what_was_taken() -> None:
    host, guest = pair(2)
    host.send(2, b"x" * 1000)
    taken = bytearray()

    def some(view: memoryview) -> int:
        taken.extend(view[:100])
        return min(100, len(view))

    while host.pending_output:
        host.write_to(some)
    assert sum(len(carried(e)) for e in guest.receive(taken)) == 1000


def test_a_write_that_fails_loses_nothing() -> None:
    host, guest = pair(2)
    host.send(2, b"x")

    def full(_view: memoryview) -> int:
        raise BlockingIOError

    with pytest.raises(BlockingIOError):
        host.write_to(full)
    assert len(deliver(host, guest)) == 1


def test_what_is_queued_while_holding_is_written_after_the_release() -> None:
    host, guest = pair(2)
    host.send(2, b"before")
    host.hold()
    host.send(2, b"after")
    taken = bytearray()

    def few(view: memoryview) -> int:
        taken.extend(view[:5])
        return len(view[:5])

    while host.ready_output:
        host.write_to(few)
    assert [carried(event) for event in guest.receive(taken)] == [b"before"]
    assert host.write_to(few) == 0 and host.pending_output
    host.release()
    assert [carried(event) for event in deliver(host, guest)] == [b"after"]
