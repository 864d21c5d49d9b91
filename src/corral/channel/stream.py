"""One byte stream in both directions, with back-pressure, inside a Channel."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self

from corral.channel.failures import again, printable
from corral.errors import CorralError, StreamResetError
from corral_guest.wire import Connection, StreamError

READ_LIMIT = 1 << 16


class Owner(Protocol):
    """What a stream needs of its Channel."""

    connection: Connection
    room_made: asyncio.Event

    def room(self) -> int:
        """How many bytes may be queued for the guest now."""

    def flush(self) -> None:
        """Write what the socket takes of what is queued."""

    def forget(self, stream: int) -> None:
        """Drop the stream: nothing will be delivered to it."""


class Stream:
    """A byte stream to and from the guest; made by `Channel.open_stream` or `accept_stream`.

    The guest sends at most wire.WINDOW bytes ahead of `read`; `write` waits for the guest the same
    way. One task may read while another one writes. As a context manager it resets the stream on
    leaving unless both directions have ended.
    """

    def __init__(self, owner: Owner, number: int) -> None:
        self.id = number
        self._owner = owner
        self._received = bytearray()
        self._changed = asyncio.Event()  # for the reader: data, the end or a failure came
        self._granted = asyncio.Event()  # for the writer: credit or a failure came
        self._ended_in = False
        self._ended_out = False
        self._failure: CorralError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reset()

    async def read(self, limit: int = READ_LIMIT) -> bytes:
        """The next bytes, at least one and at most limit; b"" at the end of the stream.

        Raises StreamResetError when the stream was given up, and what ended the channel when that
        came first. Cancelling it loses nothing.
        """
        if limit < 1:
            raise ValueError("limit must be at least one byte")
        while not self._received:
            if self._ended_in:
                return b""
            if self._failure is not None:
                raise again(self._failure)
            self._changed.clear()
            await self._changed.wait()
        if len(self._received) <= limit:
            data = bytes(self._received)
            self._received.clear()
        else:
            data = bytes(memoryview(self._received)[:limit])
            del self._received[:limit]
        if self._failure is None:
            self._owner.connection.consumed(self.id, len(data))
            self._owner.flush()
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of data, as fast as the guest takes it.

        Raises like `read`, and StreamError after `end`. When it is cancelled, a part of data may
        have been sent.
        """
        rest = memoryview(data).cast("B")
        while True:
            self._check_writable()
            if not rest:
                return
            room = self._owner.room()
            if not room:
                await self._owner.room_made.wait()
                continue
            sent = self._owner.connection.send(self.id, rest[:room])
            if not sent:
                self._granted.clear()
                await self._granted.wait()
                continue
            self._owner.flush()
            rest = rest[sent:]

    async def end(self) -> None:
        """Tell the guest that no more data comes; reading goes on. Raises like `write`."""
        self._check_writable()
        self._ended_out = True
        self._owner.connection.end(self.id)
        self._owner.flush()
        if self._ended_in:
            self._owner.forget(self.id)

    def reset(self, reason: str = "") -> None:
        """Give the stream up in both directions. Nothing happens when it is closed already."""
        if self._failure is not None or (self._ended_in and self._ended_out):
            return
        self._owner.connection.reset(self.id, reason)
        self._owner.forget(self.id)
        self._received.clear()
        self._ended_in = False  # a reader must not take this for the end of the data
        self.fail(StreamResetError(f"stream {self.id} was given up: {reason or 'not needed'}"))
        self._owner.flush()

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise again(self._failure)
        if self._ended_out:
            raise StreamError(f"stream {self.id} is ended for writing")

    # Called by the Channel

    def deliver(self, data: bytes) -> None:
        """Data arrived; never more than wire.WINDOW bytes before they are read."""
        self._received += data
        self._changed.set()

    def deliver_end(self) -> None:
        """The guest ended its direction."""
        self._ended_in = True
        self._changed.set()
        if self._ended_out:
            self._owner.forget(self.id)

    def deliver_reset(self, reason: str) -> None:
        """The guest gave the stream up; what has arrived can still be read."""
        self._owner.forget(self.id)
        self.fail(StreamResetError(f"the guest gave up stream {self.id}: {printable(reason)}"))

    def deliver_credit(self) -> None:
        """More may be sent."""
        self._granted.set()

    def fail(self, failure: CorralError) -> None:
        """Wake reader and writer with this failure; what has arrived can still be read."""
        self._failure = failure
        self._changed.set()
        self._granted.set()
