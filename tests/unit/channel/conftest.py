"""A guest made of a Connection and a socket, driven step by step."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from corral.channel import Channel, serial_pair
from corral_guest import wire


class ScriptedGuest:
    """Says and hears what a test tells it to; by default it grants credit for what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.connection = wire.Connection()
        self._events: list[wire.Event] = []

    async def flush(self) -> None:
        await self.raw(self.connection.take_output())

    async def raw(self, data: bytes) -> None:
        """Send any bytes at all; the host may have hung up."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def say(self, body: dict[str, Any]) -> None:
        self.connection.send_message(body)
        await self.flush()

    async def hear(self) -> wire.Event:
        """The next event from the host."""
        while not self._events:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
            assert data, "the host hung up"
            for event in self.connection.receive(data):
                self._events.append(event)
                if isinstance(event, wire.Message):
                    for name, number in event.body.get("params", {}).items():
                        if name == "stream":
                            self.connection.open(number)
        return self._events.pop(0)

    async def hear_call(self) -> Any:
        event = await self.hear()
        assert isinstance(event, wire.Message)
        return wire.parse_message(event.body)

    async def answer(self, result: Any = None) -> wire.Request:
        call = await self.hear_call()
        assert isinstance(call, wire.Request)
        await self.say(wire.response(call.id, result))
        return call


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, ScriptedGuest]]:
    """A started channel and the guest at its other end."""
    ours, theirs = serial_pair()
    with theirs:
        async with await Channel.start(ours) as channel:
            yield channel, ScriptedGuest(theirs)
