"""The host side: calls and streams work, wait, survive cancelling, and bear a hostile guest."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from corral.channel import Channel, Stream, serial_pair
from corral.channel.channel import MAX_CALLS
from corral.errors import ChannelError, GuestError, SandboxGoneError, StreamResetError
from corral_guest import wire

from .conftest import ScriptedGuest

Ends = tuple[Channel, ScriptedGuest]


async def stream_pair(ends: Ends) -> Stream:
    channel, guest = ends
    stream = channel.open_stream()
    async with asyncio.TaskGroup() as group:
        group.create_task(guest.answer())
        await channel.call("open", {"stream": stream.id})
    return stream


# Calls


async def test_a_call_returns_what_the_guest_answers(ends: Ends) -> None:
    channel, guest = ends
    async with asyncio.TaskGroup() as group:
        answering = group.create_task(guest.answer({"pid": 7}))
        assert await channel.call("exec.start", {"argv": ["true"]}) == {"pid": 7}
    assert answering.result().method == "exec.start"


async def test_answers_may_come_in_any_order(ends: Ends) -> None:
    channel, guest = ends
    async with asyncio.TaskGroup() as group:
        first = group.create_task(channel.call("a"))
        second = group.create_task(channel.call("b"))
        calls = [await guest.hear_call(), await guest.hear_call()]
        for call in reversed(calls):
            await guest.say(wire.response(call.id, call.method))
    assert (first.result(), second.result()) == ("a", "b")


async def test_an_error_of_the_guest_is_raised_without_what_could_drive_a_terminal(
    ends: Ends,
) -> None:
    channel, guest = ends
    task = asyncio.create_task(channel.call("exec"))
    call = await guest.hear_call()
    await guest.say(wire.error(call.id, 2, "no such file\x1b[2J", {"path": "x"}))
    with pytest.raises(GuestError) as error:
        await task
    assert error.value.message == "no such file\\x1b[2J"
    assert (error.value.code, error.value.data) == (2, {"path": "x"})
    assert channel.failure is None


async def test_a_call_without_an_answer_ends_in_time_and_the_channel_goes_on(ends: Ends) -> None:
    channel, guest = ends
    with pytest.raises(ChannelError, match="did not answer slow within"):
        await channel.call("slow", timeout=0.01)
    late = await guest.hear_call()
    await guest.say(wire.response(late.id, "late"))
    async with asyncio.TaskGroup() as group:
        group.create_task(guest.answer("good"))
        assert await channel.call("quick") == "good"


async def test_a_cancelled_call_leaves_the_channel_usable(ends: Ends) -> None:
    channel, guest = ends
    task = asyncio.create_task(channel.call("slow"))
    call = await guest.hear_call()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guest.say(wire.error(call.id, 1, "late"))
    async with asyncio.TaskGroup() as group:
        group.create_task(guest.answer("good"))
        assert await channel.call("quick") == "good"


async def test_a_guest_that_answers_nothing_cannot_collect_calls_without_end(ends: Ends) -> None:
    channel, _ = ends
    tasks = [asyncio.create_task(channel.call("x")) for _ in range(MAX_CALLS)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(ChannelError, match="without an answer"):
        await channel.call("x")


async def test_params_that_are_not_json_fail_at_the_caller_only(ends: Ends) -> None:
    channel, guest = ends
    with pytest.raises(ValueError):
        await channel.call("x", {"a": "\udcff"})
    async with asyncio.TaskGroup() as group:
        group.create_task(guest.answer("good"))
        assert await channel.call("quick") == "good"


async def test_notifications_reach_their_handler(ends: Ends) -> None:
    channel, guest = ends
    came = asyncio.get_running_loop().create_future()
    channel.handle("ready", came.set_result)
    await guest.say(wire.notification("ready", {"version": 1}))
    assert await came == {"version": 1}


async def test_the_host_can_notify_too(ends: Ends) -> None:
    channel, guest = ends
    await channel.notify("resize", {"rows": 24})
    note = await guest.hear_call()
    assert isinstance(note, wire.Notification) and note.params == {"rows": 24}


# Streams


async def test_a_stream_carries_bytes_both_ways_to_both_ends(ends: Ends) -> None:
    _, guest = ends
    stream = await stream_pair(ends)
    await stream.write(b"question")
    await stream.end()
    heard = await guest.hear()
    assert isinstance(heard, wire.Data) and heard.data == b"question"
    assert isinstance(await guest.hear(), wire.Ended)
    guest.connection.send(stream.id, b"answer")
    guest.connection.end(stream.id)
    await guest.flush()
    assert [await stream.read(3), await stream.read(), await stream.read()] == [b"ans", b"wer", b""]
    with pytest.raises(wire.StreamError):
        await stream.write(b"more")


async def test_writing_waits_for_credit_and_for_nothing_else(ends: Ends) -> None:
    channel, guest = ends
    stream = await stream_pair(ends)
    writing = asyncio.create_task(stream.write(bytes(2 * wire.WINDOW)))
    heard = 0
    while heard < wire.WINDOW:
        event = await guest.hear()
        assert isinstance(event, wire.Data)
        heard += len(event.data)
    assert heard == wire.WINDOW and not writing.done()
    async with asyncio.TaskGroup() as group:
        group.create_task(guest.answer("alive"))
        assert await channel.call("ping") == "alive"
    guest.connection.consumed(stream.id, wire.WINDOW)
    await guest.flush()
    await writing


async def test_what_nobody_reads_stops_the_guest_after_one_window(ends: Ends) -> None:
    _, guest = ends
    stream = await stream_pair(ends)
    assert guest.connection.send(stream.id, bytes(wire.WINDOW * 2)) == wire.WINDOW
    await guest.flush()
    got = 0
    while got < wire.WINDOW:
        got += len(await stream.read())
    assert isinstance(await guest.hear(), wire.Credit)


async def test_a_guest_that_does_not_read_stops_writers_in_bounded_memory(ends: Ends) -> None:
    channel, guest = ends
    streams = []
    for _ in range(20):
        streams.append(await stream_pair(ends))
    tasks = [asyncio.create_task(each.write(bytes(wire.WINDOW))) for each in streams]
    await asyncio.sleep(0.05)
    assert not all(task.done() for task in tasks)
    assert channel.connection.pending_output <= wire.WINDOW + 20 * wire.HEADER
    heard = 0
    while heard < 20 * wire.WINDOW:
        event = await guest.hear()
        heard += len(event.data) if isinstance(event, wire.Data) else 0
    await asyncio.gather(*tasks)


async def test_a_cancelled_read_loses_nothing(ends: Ends) -> None:
    _, guest = ends
    stream = await stream_pair(ends)
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    guest.connection.send(stream.id, b"kept")
    await guest.flush()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await stream.read() == b"kept"


async def test_a_stream_that_the_guest_resets_says_why_after_what_had_come(ends: Ends) -> None:
    channel, guest = ends
    stream = await stream_pair(ends)
    guest.connection.send(stream.id, b"first")
    guest.connection.reset(stream.id, "disk full\x07")
    await guest.flush()
    assert await stream.read() == b"first"
    with pytest.raises(StreamResetError, match=r"disk full\\x07"):
        await stream.read()
    with pytest.raises(StreamResetError):
        await stream.write(b"x")
    assert channel.failure is None


async def test_leaving_a_stream_resets_it_and_wakes_its_reader(ends: Ends) -> None:
    _, guest = ends
    async with await stream_pair(ends) as stream:
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
    with pytest.raises(StreamResetError):
        await reading
    assert isinstance(await guest.hear(), wire.Reset)


async def test_a_handler_can_accept_a_stream_in_time_for_its_data(ends: Ends) -> None:
    channel, guest = ends
    accepted = asyncio.get_running_loop().create_future()
    channel.handle("dial", lambda p: accepted.set_result(channel.accept_stream(p["stream"])))
    guest.connection.open(1)
    guest.connection.send_message(wire.notification("dial", {"stream": 1}))
    guest.connection.send(1, b"hello")
    await guest.flush()
    assert await (await accepted).read() == b"hello"


# The channel ends


async def test_when_the_guest_is_gone_everything_that_waits_is_told(ends: Ends) -> None:
    channel, guest = ends
    stream = await stream_pair(ends)
    tasks = [
        asyncio.create_task(each)
        for each in (channel.call("x"), stream.read(), stream.write(bytes(wire.WINDOW * 2)))
    ]
    await asyncio.sleep(0)
    guest.sock.close()
    for task in tasks:
        with pytest.raises(SandboxGoneError, match="closed the channel"):
            await task
    assert isinstance(await channel.wait_closed(), SandboxGoneError)
    with pytest.raises(SandboxGoneError):
        await channel.call("y")
    with pytest.raises(SandboxGoneError):
        channel.open_stream()


async def test_what_the_guest_said_last_is_heard_though_writing_fails_first(ends: Ends) -> None:
    channel, guest = ends
    stream = await stream_pair(ends)
    guest.connection.send(stream.id, b"last words")
    guest.connection.end(stream.id)
    await guest.flush()
    guest.sock.close()
    await stream.write(b"to nobody")
    assert await stream.read() == b"last words"
    assert await stream.read() == b""
    assert isinstance(await channel.wait_closed(), SandboxGoneError)


async def test_closing_wakes_what_waits_and_leaves_no_socket() -> None:
    ours, theirs = serial_pair()
    with theirs:
        channel = await Channel.start(ours)
        task = asyncio.create_task(channel.call("x"))
        await asyncio.sleep(0)
        await channel.aclose()
        await channel.aclose()
        with pytest.raises(ChannelError, match="was closed"):
            await task
        assert ours.fileno() == -1


# Hostile guests


@pytest.mark.parametrize(
    "body",
    [
        wire.response(99, 1),
        wire.error(99, 1, "x"),
        wire.request(1, "host.shell"),
        wire.notification("unheard-of"),
        wire.notification("dial", {"stream": 2}),
        wire.notification("dial", {"stream": "1"}),
        wire.notification("dial", {"stream": True}),
        wire.notification("dial", {"stream": -1}),
        wire.notification("dial", {"stream": 2**32 + 1}),
        {"id": 1},
    ],
)
async def test_control_messages_out_of_place_end_the_channel(
    ends: Ends, body: dict[str, Any]
) -> None:
    channel, guest = ends

    def dial(params: dict[str, object]) -> None:
        channel.accept_stream(params["stream"])

    channel.handle("dial", dial)
    waiting = asyncio.create_task(channel.call("x"))
    await guest.hear_call()
    await guest.say(body)
    with pytest.raises(ChannelError):
        await waiting
    assert type(channel.failure) is ChannelError


async def test_garbage_ends_the_channel(ends: Ends) -> None:
    channel, guest = ends
    waiting = asyncio.create_task(channel.call("x"))
    await guest.raw(b"login: \xff\xfe\0garbage")
    with pytest.raises(ChannelError, match="broke the protocol"):
        await waiting


async def test_a_flood_of_notifications_takes_no_memory_and_leaves_others_their_turn(
    ends: Ends,
) -> None:
    channel, guest = ends
    heard, all_heard = 0, asyncio.Event()

    def note(_params: dict[str, object]) -> None:
        nonlocal heard
        heard += 1
        if heard == 101 * 400:
            all_heard.set()

    channel.handle("log", note)
    guest.connection.send_message(wire.notification("log", {"text": "x" * 200}))
    one = guest.connection.take_output()
    block = one * 400
    tracemalloc.start()
    try:
        flood = asyncio.create_task(guest.raw(block))
        turns = 0
        for _ in range(100):
            while not flood.done():
                await asyncio.sleep(0)
                turns += 1
            flood = asyncio.create_task(guest.raw(block))
        await flood
        await all_heard.wait()
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        assert turns >= 100
    finally:
        tracemalloc.stop()
    assert channel.failure is None


async def test_a_reset_storm_without_reading_is_cut_off_in_bounded_memory(ends: Ends) -> None:
    channel, guest = ends
    guest.connection.open(1)
    storm = b"\x05\0\0\0" + b"\0\0\0\x01" + b"\0\0\0\0"
    with pytest.raises(OSError):
        for _ in range(1000):
            await guest.raw(storm * 10_000)
    assert type(channel.failure) is ChannelError
    assert "does not read" in str(channel.failure)


async def test_a_fault_in_a_handler_is_reported_and_leaves_nobody_waiting(ends: Ends) -> None:
    channel, guest = ends
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c["exception"]))

    def faulty(_params: dict[str, object]) -> None:
        raise ZeroDivisionError

    channel.handle("x", faulty)
    await guest.say(wire.notification("x"))
    assert isinstance(await channel.wait_closed(), ChannelError)
    assert isinstance(reported[0], ZeroDivisionError)


async def test_after_a_suspending_call_nothing_is_sent_until_it_is_resumed(ends: Ends) -> None:
    channel, guest = ends
    stream = channel.open_stream()
    call = asyncio.create_task(channel.suspend("freeze", 20))
    await guest.answer({})
    assert await call == {}
    await channel.notify("later", {"stream": stream.id})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guest.hear(), 0.1)
    channel.resume()
    said = await guest.hear_call()
    assert said.method == "later"
