"""The guest's end of a stream, played by a test."""

from __future__ import annotations

import asyncio

from corral.errors import StreamResetError


class Guest:
    """What the engine gets as a stream, with the other end in the test's hand.

    window: bytes that may wait in each direction.
    """

    def __init__(self, window: int = 1 << 18) -> None:
        self.window = window
        self.to_host = bytearray()
        self.to_guest = bytearray()
        self.most_held = 0
        self.guest_ended = False
        self.host_ended = False
        self.reset_reason: str | None = None
        self.gone = False
        self._change = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # What the engine calls

    async def read(self, limit: int = 1 << 16) -> bytes:
        async with self._change:
            await self._change.wait_for(
                lambda: self.to_host or self.guest_ended or self.gone or self._is_reset()
            )
            if self._is_reset() or (self.gone and not self.to_host):
                raise StreamResetError("given up")
            data = bytes(self.to_host[:limit])
            del self.to_host[:limit]
            self._change.notify_all()
            return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        rest = bytes(data)
        while rest:
            async with self._change:
                await self._change.wait_for(
                    lambda: len(self.to_guest) < self.window or self.gone or self._is_reset()
                )
                if self.gone or self._is_reset():
                    raise StreamResetError("given up")
                room = self.window - len(self.to_guest)
                self.to_guest += rest[:room]
                rest = rest[room:]
                self.most_held = max(self.most_held, len(self.to_guest))
                self._change.notify_all()

    async def end(self) -> None:
        async with self._change:
            self.host_ended = True
            self._change.notify_all()

    def reset(self, reason: str = "") -> None:
        if self.reset_reason is None and not (self.guest_ended and self.host_ended):
            self.reset_reason = reason
            self._notify()

    def _is_reset(self) -> bool:
        return self.reset_reason is not None

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._change:
                self._change.notify_all()

        task = asyncio.ensure_future(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the guest does

    async def say(self, data: bytes) -> None:
        """Send, as far as there is room; what a reset stream is told is lost."""
        while data and self.reset_reason is None:
            async with self._change:
                await self._change.wait_for(
                    lambda: len(self.to_host) < self.window or self._is_reset()
                )
                room = self.window - len(self.to_host)
                self.to_host += data[:room]
                data = data[room:]
                self._change.notify_all()

    async def finish(self) -> None:
        """No more comes from the guest."""
        async with self._change:
            self.guest_ended = True
            self._change.notify_all()

    async def give_up(self) -> None:
        """The guest resets the stream."""
        async with self._change:
            self.gone = True
            self._change.notify_all()

    async def hear(self, size: int) -> bytes:
        """So many bytes of what came, or fewer when it ended or was reset."""
        heard = bytearray()
        while len(heard) < size:
            async with self._change:
                await self._change.wait_for(
                    lambda: self.to_guest or self.host_ended or self._is_reset()
                )
                if not self.to_guest:
                    break
                room = size - len(heard)
                heard += self.to_guest[:room]
                del self.to_guest[:room]
                self._change.notify_all()
        return bytes(heard)

    async def hear_some(self) -> bytes:
        """What has come, at least a byte; b"" at the end or after a reset."""
        first = await self.hear(1)
        rest = bytes(self.to_guest)
        return first + await self.hear(len(rest)) if rest else first

    async def hear_all(self) -> bytes:
        """All that comes until the end or a reset."""
        heard = bytearray()
        while piece := await self.hear(1 << 16):
            heard += piece
        return bytes(heard)

    async def taken(self) -> None:
        """Wait until the engine has read all that was said."""
        async with self._change:
            await self._change.wait_for(lambda: not self.to_host or self._is_reset())

    async def settled(self) -> None:
        """Let the engine's task for this stream come to its end."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def refused(self) -> str:
        """The reason for which it was reset, once it is."""
        async with self._change:
            await self._change.wait_for(self._is_reset)
        assert self.reset_reason is not None
        return self.reset_reason
