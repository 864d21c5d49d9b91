"""The bodies of requests as they come in: what they take of the memory, and how long they may take.

A body is held as a whole, as it has to be checked before a key is added to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from aiohttp import web

from .asked import MAX_BODY, Unpacker, too_large
from .dialects import Refusal

# Bytes of bodies of all requests under way, unpacked. To an upstream that does not read, each may
# be held a second time by its connection.
MAX_HELD = 256 << 20
# It comes from a program's memory over a socket of this machine; one of 64 MiB has 5 minutes.
SECONDS = 60.0  # for any
BYTES_A_SECOND = 256 << 10  # on the way, and not unpacked


class Memory:
    """What the bodies of all requests under way may take.

    Half of it is divided among the agents, and there for each at any time. What an agent needs
    beyond its part comes from the other half, which whoever comes first may have; but no agent
    among several more than half of that, so that one alone keeps no body of another's out.
    """

    def __init__(self, agents: Iterable[int], most: int) -> None:
        """most: bytes."""
        self._held = dict.fromkeys(agents, 0)
        self._part = most // 2 // len(self._held)
        self._common = most // 2
        self._share = self._common // min(2, len(self._held))

    @contextlib.contextmanager
    def room(self, agent: int) -> Iterator[Room]:
        """For one request."""
        room = Room(self, agent)
        try:
            yield room
        finally:
            self.change(agent, -room.taken)

    def change(self, agent: int, more: int) -> None:
        """An agent's requests hold so many bytes more, or fewer. Raises Refusal."""
        held = self._held[agent] + more
        beyond = held - self._part
        others = sum(
            max(0, each - self._part) for other, each in self._held.items() if other != agent
        )
        if more > 0 and beyond > min(self._share, self._common - others):
            raise Refusal(503, "too much is under way.", retry_after=2.0)
        self._held[agent] = held


class Room:
    """What one request's body takes of it. taken: bytes."""

    def __init__(self, memory: Memory, agent: int) -> None:
        self._memory = memory
        self._agent = agent
        self.taken = 0

    def hold(self, size: int) -> None:
        """From now on so many bytes are held. Raises Refusal."""
        if size > MAX_BODY:
            raise too_large()
        self._memory.change(self._agent, size - self.taken)
        self.taken = size


async def body(request: web.BaseRequest, room: Room) -> bytearray:
    """What a request's body says, unpacked as it comes. Raises Refusal."""
    if (request.content_length or 0) > MAX_BODY:
        raise too_large()
    unpacker = Unpacker(request.headers.get("Content-Encoding", "").strip().lower())
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    plain = bytearray()
    until = asyncio.get_running_loop().time() + SECONDS
    try:
        async with asyncio.timeout_at(until) as limit:
            async for data in request.content.iter_any():
                for piece in unpacker.feed(data):
                    room.hold(len(plain) + len(piece))
                    plain += piece
                until += len(data) / BYTES_A_SECOND
                limit.reschedule(until)
    except TimeoutError:
        raise Refusal(408, "the body comes too slowly.", retry_after=1.0) from None
    unpacker.end()
    return plain
