"""Published ports: clients of the host are connected to streams, each way ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from corral.channel import Channel, Stream
from corral.channel.server import ServedChannel
from corral.errors import GuestError, PortError, StreamResetError
from corral.policy import Network, Publish
from corral.sandbox.ports import Port, Ports, any_ports, shown
from corral_guest import wire

Serve = Callable[[Stream], Awaitable[None]]


def publish(port: int = 0, guest_port: int = 8000, address: str = "127.0.0.1") -> Publish:
    return Publish(address=address, port=port, guest_port=guest_port)


class Guest:
    """The other end of a channel, which takes every dial to a port that it serves."""

    def __init__(self) -> None:
        self.serves: dict[int, Serve] = {8000: echo}
        self.dialled: list[tuple[int, int]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def requested(self, request: wire.Request) -> None:
        port = request.params["port"]
        self.dialled.append((request.params["agent"], port))
        if port not in self.serves:
            return self.channel.refuse(request.id, -32000, "Connection refused", {"errno": 111})
        stream = self.channel.register(request.params["stream"])
        self.channel.answer(request.id, {})
        self._tasks.append(asyncio.ensure_future(self.serves[port](stream)))
        return None

    channel: ServedChannel


async def echo(stream: Stream) -> None:
    """Say everything again, then end."""
    with contextlib.suppress(StreamResetError):
        while data := await stream.read():
            await stream.write(data)
        await stream.end()


@contextlib.asynccontextmanager
async def served(*publishes: Publish) -> AsyncIterator[tuple[Ports, Guest]]:
    ours, theirs = socket.socketpair()
    guest = Guest()
    guest.channel = await ServedChannel.serve(theirs, guest.requested)
    async with await Channel.start(ours) as channel, Ports(publishes) as ports:

        async def dial(agent: int, port: int) -> Stream:
            stream = channel.open_stream()
            try:
                await channel.call("dial", {"agent": agent, "stream": stream.id, "port": port})
            except GuestError:
                stream.reset()
                raise
            return stream

        ports.serve(dial)
        yield ports, guest
    await guest.channel.aclose()


async def client(port: Port) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(port.address, port.port)


async def test_a_client_talks_to_the_guests_port() -> None:
    async with served(publish()) as (ports, guest):
        (port,) = ports.listed()
        reader, writer = await client(port)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        assert guest.dialled == [(1, 8000)]
        (after,) = ports.listed()
        assert (after.received, after.sent) == (5, 5)


async def test_much_goes_both_ways_at_once() -> None:
    async with served(publish()) as (ports, _guest):
        reader, writer = await client(ports.listed()[0])
        sent = bytes(range(256)) * 16384

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _none, received = await asyncio.gather(send(), reader.read())
        assert received == sent
        writer.close()


async def test_a_port_where_nobody_listens_resets() -> None:
    async with served(publish(guest_port=9)) as (ports, _guest):
        reader, writer = await client(ports.listed()[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_clients_may_come_before_the_sandbox_is_up() -> None:
    async with Ports([publish()]) as ports:
        reader, writer = await client(ports.listed()[0])
        taken = asyncio.Event()

        async def dial(_agent: int, _port: int) -> Stream:
            taken.set()
            raise GuestError("no", code=1, data={})

        assert not taken.is_set()
        ports.serve(dial)
        await asyncio.wait_for(taken.wait(), 10)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_port_that_is_removed_is_gone_and_so_are_its_connections() -> None:
    async with served(publish(), publish()) as (ports, _guest):
        first, second = ports.listed()
        reader, writer = await client(first)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        assert ports.listed()[0].connections == 1
        assert await ports.remove(first.port) == first
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await client(first)
        assert ports.listed() == (second,)
        writer.close()


async def test_nothing_listens_after_the_end() -> None:
    async with served(publish()) as (ports, _guest):
        (port,) = ports.listed()
    with pytest.raises(ConnectionRefusedError):
        await client(port)


def test_a_port_in_use_is_one_plain_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(PortError, match=f"port {taken} of 127.0.0.1 is in use") as error:
            Ports([publish(), publish(taken)])
    assert error.value.hint is not None
    assert "-p 127.0.0.1:0:8000" in error.value.hint


def test_an_address_that_is_not_ours_is_one_plain_error() -> None:
    with pytest.raises(PortError, match=r"192\.0\.2\.1 is no address of this machine"):
        Ports([publish(address="192.0.2.1")])


async def test_one_port_of_two_addresses_has_to_be_named() -> None:
    async with Ports([publish()]) as ports:
        (first,) = ports.listed()
        ports.bind(publish(first.port, address="127.0.0.2"))
        with pytest.raises(PortError, match="several addresses"):
            await ports.remove(first.port)
        await ports.remove(first.port, "127.0.0.2")
        assert ports.listed() == (first,)
        with pytest.raises(PortError, match="not published"):
            await ports.remove(first.port, "127.0.0.2")


async def test_where_any_port_was_right_it_is_told_which() -> None:
    async with Ports([publish()]) as ports:
        (port,) = ports.listed()
        assert [notice.message for notice in ports.chosen()] == [
            f"port 8000 is at 127.0.0.1:{port.port}"
        ]


def test_ports_are_shown_as_in_a_url() -> None:
    assert shown(Port(address="::1", port=1, guest_port=2)) == "[::1]:1"


def test_a_copy_gets_other_ports() -> None:
    network = Network(publish=(publish(8080, 80), publish(0, 81)))
    assert [each.port for each in any_ports(network).publish] == [0, 0]
    assert [each.guest_port for each in any_ports(network).publish] == [80, 81]


async def test_a_machine_without_ipv6_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object, **_options: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none)
        with pytest.raises(PortError, match="this machine has no IPv6"):
            Ports([publish(8080, address="::1")])
