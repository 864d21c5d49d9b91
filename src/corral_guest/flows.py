"""Bytes between a command's descriptors and the channel's streams, in both directions.

Nothing is held beyond what the peer has granted: a command that writes faster than the host reads
blocks in write(2), as with any pipe.
"""

from __future__ import annotations

import os

from . import wire
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

READ_SIZE = 65536
MAX_PENDING = 256 * 1024  # bytes queued for the carrier before reading stops


class Outflow:
    """From a descriptor to a stream. `on_end` is called once, when all has been queued."""

    def __init__(
        self, loop: Loop, channel: wire.Connection, fd: int, stream: int, on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._fd = fd
        self.stream = stream
        self._on_end = on_end
        self._finishing = False
        os.set_blocking(fd, False)
        self.resume()

    def resume(self) -> None:
        """There may be credit or room again."""
        if self._fd >= 0:
            self._loop.watch(self._fd, READ, self._ready)

    def _ready(self, _events: int) -> None:
        if not self._channel.is_open(self.stream):
            return self._end()
        room = min(self._channel.credit(self.stream), READ_SIZE)
        if room == 0 or self._channel.pending_output > MAX_PENDING:
            return self._loop.forget(self._fd)
        try:
            data = os.read(self._fd, room)
        except BlockingIOError:
            # Whoever else holds the other end, the command itself is gone and all it wrote is read.
            return self._end() if self._finishing else None
        except OSError:  # EIO: the last holder of a terminal has closed it
            data = b""
        if not data:
            return self._end()
        self._channel.send(self.stream, data)
        if self._finishing:
            self.resume()
        return None

    def finish(self) -> None:
        """The command has ended: pass on what is there now, then end."""
        self._finishing = True
        while self._fd >= 0 and self._channel.credit(self.stream):
            if self._channel.pending_output > MAX_PENDING:
                break
            self._ready(READ)
        if self._fd >= 0:
            if not self._channel.is_open(self.stream):
                self._end()
            else:
                self._loop.forget(self._fd)  # `resume` goes on when there is credit

    @property
    def finishing(self) -> bool:
        """Whether the command has ended and only its last output is under way."""
        return self._finishing

    def _end(self) -> None:
        if self._fd < 0:
            return
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._channel.is_open(self.stream):
            self._channel.end(self.stream)
        self._on_end()


class Inflow:
    """From a stream to a descriptor."""

    def __init__(self, loop: Loop, channel: wire.Connection, fd: int, stream: int) -> None:
        self._loop = loop
        self._channel = channel
        self._fd = fd
        self.stream = stream
        self._buffer = bytearray()
        self._ended = False
        os.set_blocking(fd, False)

    def data(self, data: bytes) -> None:
        """Bytes from the host."""
        if self._fd < 0:
            self._channel.consumed(self.stream, len(data))
            return
        self._buffer += data
        self._write(WRITE)

    def end(self) -> None:
        """The host will send no more; close once all is written."""
        self._ended = True
        if not self._buffer:
            self.close()

    def _write(self, _events: int) -> None:
        while self._buffer:
            try:
                size = os.write(self._fd, self._buffer)
            except BlockingIOError:
                return self._loop.watch(self._fd, WRITE, self._write)
            except OSError:  # nobody reads any more
                return self.close()
            del self._buffer[:size]
            self._channel.consumed(self.stream, size)
        self._loop.forget(self._fd)
        if self._ended:
            self.close()
        return None

    def close(self) -> None:
        """Stop; tell the host to send no more."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._buffer.clear()
        self._channel.reset(self.stream, "closed")
