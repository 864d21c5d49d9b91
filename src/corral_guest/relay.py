"""Bytes between a program's connection and a stream of the channel, in both directions.

Each direction ends by itself, as in TCP. As in `flows`, nothing is held beyond what is granted.
"""

from __future__ import annotations

import os
import socket
import struct

from .flows import MAX_PENDING, READ_SIZE
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import wire
    from .flows import Share
    from .loop import Loop

_ABORT = struct.pack("ii", 1, 0)  # struct linger: closing sends RST


def refuse(connection: socket.socket) -> None:
    """Close a connection so that the program sees it reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()


class Relay:
    """One connection. on_end: called once, when it is closed.

    crowded: it has stopped reading because the carrier takes no more; `resume` it when that does.
    """

    __slots__ = ("_buffer", "_channel", "_eof", "_host_ended", "_loop", "_on_end", "_share",
                 "_socket", "crowded", "stream")  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        channel: wire.Connection,
        connection: socket.socket,
        stream: int,
        on_end: Callable[[], None],
        share: Share,
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._channel = channel
        self._socket: socket.socket | None = connection
        self.stream = stream
        self._on_end = on_end
        self._share = share
        self._buffer = bytearray()  # for the program
        self._eof = False
        self._host_ended = False
        self.crowded = False
        self.resume()

    # What the host does

    def data(self, data: bytes) -> None:
        """Bytes for the program."""
        if self._socket is not None:
            self._buffer += data
            self._write()

    def end(self) -> None:
        """The host sends no more: nor do we, once all is written."""
        self._host_ended = True
        if self._socket is not None:
            self._write()

    def resume(self) -> None:
        """There may be credit or room again."""
        if self._socket is None:
            return
        full = self._channel.pending_output > MAX_PENDING or self._share.used
        self.crowded = not self._eof and full
        interest = WRITE if self._buffer else 0
        if not (self._eof or self.crowded) and self._channel.credit(self.stream):
            interest |= READ
        # With no interest at all, a reset of the program's is still heard of.
        self._loop.watch(self._socket.fileno(), interest, self._ready)

    def abort(self, reason: str = "") -> None:
        """End it at once: the program sees a reset, and so does the host, unless it began."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        self._loop.forget(connection.fileno())
        refuse(connection)
        self._buffer.clear()
        self._channel.reset(self.stream, reason)
        self._on_end()

    # What the program does

    def _ready(self, events: int) -> None:
        if events & WRITE and self._buffer:
            self._write()
        if events & READ and not self._eof:
            self._read()
        elif events & ~(READ | WRITE) and self._socket is not None:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.abort(os.strerror(number))
            else:  # it is over in both directions, and not all is read: that waits for `resume`
                self._loop.forget(self._socket.fileno())

    def _read(self) -> None:
        """One piece: others have their turn in between."""
        room = min(self._channel.credit(self.stream), READ_SIZE)
        if self._socket is None:
            return
        if not room or self._channel.pending_output > MAX_PENDING or self._share.used:
            return self.resume()
        try:
            data = self._socket.recv(room)
        except BlockingIOError:
            return None
        except OSError as error:
            return self.abort(error.strerror or "")
        if data:
            self._channel.send(self.stream, data)
            self._share.queued += len(data)
            return None
        self._eof = True
        self._channel.end(self.stream)
        return self._settle()

    def _write(self) -> None:
        assert self._socket is not None
        while self._buffer:
            try:
                size = self._socket.send(self._buffer)
            except BlockingIOError:
                break
            except OSError as error:
                return self.abort(error.strerror or "")
            del self._buffer[:size]
            self._channel.consumed(self.stream, size)
        return self._settle()

    def _settle(self) -> None:
        """End what has ended; else wait for what is next."""
        assert self._socket is not None
        if self._host_ended and not self._buffer:
            if self._eof:
                connection, self._socket = self._socket, None
                self._loop.forget(connection.fileno())
                connection.close()
                return self._on_end()
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:  # the program has reset it meanwhile
                return self.abort(error.strerror or "")
        return self.resume()
