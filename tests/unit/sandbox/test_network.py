"""What a guest asks for reaches the engine of its sandbox, or ends the channel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from corral.channel import Channel
from corral.channel.server import ServedChannel
from corral.errors import ChannelError, CorralError
from corral.events import Connection, Event, Notice
from corral.paths import log_dir
from corral.policy import Address, Network, Rule
from corral.sandbox.network import JOURNAL, Traffic, egress
from tests.support import examples

ALLOWED = Network(
    mode="allow",
    allow=(Rule(host="a.test", port=7000, text="a.test:7000"),),
)


@contextlib.asynccontextmanager
async def sandbox(
    network: Network, told: list[Event]
) -> AsyncIterator[tuple[ServedChannel, Channel, Traffic]]:
    """The guest's end, the host's end, and what is counted."""
    ours, theirs = socket.socketpair()
    guest = await ServedChannel.serve(theirs, lambda _request: None)
    plan = examples.plan(examples.spec(network=network, name="egress"))
    async with (
        await Channel.start(ours) as channel,
        egress(plan, channel, told.append) as traffic,
    ):
        yield guest, channel, traffic
    await guest.aclose()


def connect(**changes: object) -> dict[str, object]:
    return {"stream": 1, "agent": 1, "name": "a.test", "port": 7000, **changes}


async def test_a_connection_that_is_allowed_is_made_and_counted() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(5) == b"\0ping"
        writer.write(b"\0pong!")
        writer.close()

    told: list[Event] = []
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        where = Address(name="a.test", port=7000, address="127.0.0.1", to_port=port)
        network = msgspec.structs.replace(ALLOWED, addresses=(where,))
        async with sandbox(network, told) as (guest, _channel, traffic):
            stream = guest._register(1)  # as the guest, who has the odd numbers
            guest.tell("connect", connect())
            await stream.write(b"\0ping")
            assert await stream.read() == b"\0pong!"
            assert await stream.read() == b""
            await stream.end()
            assert (traffic.sent, traffic.received) == (5, 6)
    events = [event for event in told if isinstance(event, Connection)]
    assert {event.verdict for event in events} == {"allowed"}
    lines = (log_dir("egress") / JOURNAL).read_bytes().splitlines()
    assert msgspec.json.decode(lines[-1])["name"] == "a.test"


async def test_without_a_policy_who_asks_for_a_connection_is_cut_off() -> None:
    """An honest guest has nothing that could ask: what does is not corral's supervisor."""
    async with sandbox(Network(), []) as (guest, channel, _traffic):
        guest.tell("connect", connect())
        error = await channel.wait_closed()
    assert isinstance(error, ChannelError)
    assert "connect" in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": 2},
        {"stream": -1},
        {"stream": "1"},
        {"stream": None},
        {"stream": 1 << 40},
        {"agent": 2},
        {"agent": "1"},
        {"agent": True},
        {"name": ""},
        {"name": 7},
        {"name": "a" * 5000},
        {"port": 0},
        {"port": 65536},
        {"port": "80"},
    ],
)
async def test_who_asks_for_nonsense_is_cut_off(changes: dict[str, object]) -> None:
    async with sandbox(ALLOWED, []) as (guest, channel, _traffic):
        guest.tell("connect", connect(**changes))
        error: CorralError = await asyncio.wait_for(channel.wait_closed(), 10)
    assert isinstance(error, ChannelError)


async def test_a_log_that_cannot_be_written_is_told_and_refuses_nothing() -> None:
    told: list[Event] = []
    log = log_dir("egress") / JOURNAL
    log.unlink(missing_ok=True)
    log.symlink_to("/dev/full")  # not followed
    async with sandbox(ALLOWED, told) as (guest, _channel, _traffic):
        stream = guest._register(1)
        guest.tell("connect", connect(name="evil.test"))
        with pytest.raises(CorralError):
            await asyncio.wait_for(stream.read(), 30)
    log.unlink()
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert len(notices) == 1 and "`corral net log` does not have every connection" in notices[0]
