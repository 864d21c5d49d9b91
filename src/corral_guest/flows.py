"""Bytes between a command's descriptors and the channel's streams, in both directions.

Nothing is held beyond what the peer has granted: a command that writes faster than the host reads
blocks in write(2), as with any pipe.
"""

from __future__ import annotations

import array
import fcntl
import os
import termios

from . import wire
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

READ_SIZE = 65536
MAX_PENDING = 256 * 1024  # bytes queued for the carrier before reading stops
# What a terminal's buffers can hold when its command ends (TTYB_DEFAULT_MEM_LIMIT in
# drivers/tty/tty_buffer.c, and the line discipline's own 4 KiB).
_TERMINAL_BUFFER = 65536 + 4096


class Nowhere:
    """Stands in for the channel to a host that is gone: takes everything, gives nothing."""

    pending_output = 0

    def credit(self, _stream: int) -> int:
        """Any number of bytes."""
        return READ_SIZE

    def is_open(self, _stream: int) -> bool:
        """Every stream is, so that no command meets a closed pipe."""
        return True

    def open(self, _stream: int) -> None:
        """A stream."""

    def send(self, _stream: int, _data: bytes) -> None:
        """Data that nobody gets."""

    def send_message(self, _body: object) -> None:
        """A message that nobody gets."""

    def consumed(self, _stream: int, _size: int) -> None:
        """Nothing comes."""

    def end(self, _stream: int) -> None:
        """The end of a stream."""

    def reset(self, _stream: int, _reason: str = "") -> None:
        """The end of a stream."""


class Share:
    """What one agent has queued for the carrier since that was empty last.

    most: bytes, or None while it is the only one. So the flood of one agent, on however many
    streams, leaves room for what others say. turn: counts up with each piece.
    """

    __slots__ = ("most", "queued", "turn")

    def __init__(self) -> None:
        self.queued = 0
        self.turn = 0
        self.most: int | None = None

    @property
    def used(self) -> bool:
        """Whether it has to wait until the carrier is empty."""
        return self.most is not None and self.queued >= self.most


class Outflow:
    """From a descriptor to a stream.

    on_end: called once, when all has been queued, with whether the host had given the stream up.
    on_data: called when something has come.
    """

    def __init__(
        self,
        loop: Loop,
        channel: wire.Connection | Nowhere,
        fd: int,
        stream: int,
        on_end: Callable[[bool], None],
        share: Share,
        on_data: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._fd = fd
        self.stream = stream
        self._on_end = on_end
        self._share = share
        self._on_data = on_data
        self._left: int | None = None  # bytes to pass on since the command has ended
        self.turn = 0  # of the agent, when something was passed on last
        self.crowded = False  # stopped because the carrier takes no more; resume when it does
        os.set_blocking(fd, False)
        self.resume()

    def resume(self) -> None:
        """There may be credit or room again."""
        self.crowded = False
        if self._left is not None:
            self._drain()
        elif self._fd >= 0:
            self._loop.watch(self._fd, READ, lambda _events: self._pass_on())

    def _pass_on(self) -> bool:
        """Queue one piece; False when there is none, or no more may be queued now."""
        credit = self._channel.credit(self.stream)
        self.crowded = self._channel.pending_output > MAX_PENDING or self._share.used
        if not credit or self.crowded:
            self._loop.forget(self._fd)
            return False
        room = min(credit, READ_SIZE)
        try:
            data = os.read(self._fd, room if self._left is None else min(room, self._left))
        except BlockingIOError:
            # Whoever else holds the other end, the command itself is gone and all it wrote is read.
            if self._left is not None:
                self._end()
            return False
        except OSError:  # EIO: the last holder of a terminal has closed it
            data = b""
        if not data:
            self._end()
            return False
        self._channel.send(self.stream, data)
        self._share.queued += len(data)
        self._share.turn += 1
        self.turn = self._share.turn
        if self._on_data is not None:
            self._on_data()
        if self._left is not None:
            self._left -= len(data)
            if not self._left:
                self._end()
        return True

    def finish(self) -> None:
        """The command has ended: pass on what it wrote, then end.

        Others may hold its output still, and write for ever: only what is there now belongs to it.
        """
        if self._fd < 0 or self._left is not None:
            return
        if os.isatty(self._fd):
            self._left = _TERMINAL_BUFFER
        else:
            waiting = array.array("i", [0])
            fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
            self._left = waiting[0]
        self._loop.forget(self._fd)
        self._drain()

    def _drain(self) -> None:
        if self._left == 0:
            self._end()
        while self._fd >= 0 and self._pass_on():
            pass

    def strand(self, nowhere: Nowhere) -> None:
        """The host is gone and the command is not to notice: what it says is read and dropped."""
        self._channel = nowhere
        self.resume()

    def give_up(self) -> None:
        """The host reads no more: the command meets a closed pipe."""
        self._end(given_up=True)

    def _end(self, *, given_up: bool = False) -> None:
        if self._fd < 0:
            return
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._channel.is_open(self.stream):
            self._channel.end(self.stream)
        self._on_end(given_up)


class Inflow:
    """From a stream to a descriptor."""

    def __init__(
        self,
        loop: Loop,
        channel: wire.Connection | Nowhere,
        fd: int,
        stream: int,
        *,
        terminal: bool,
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._fd = fd
        self.stream = stream
        self._terminal = terminal
        self._buffer = bytearray()
        self._unsaid = 0  # bytes of the buffer that the host does not know to be consumed
        self._at_line_start = True
        self._ended = False
        os.set_blocking(fd, False)

    def data(self, data: bytes) -> None:
        """Bytes from the host."""
        if self._fd < 0:
            self._channel.consumed(self.stream, len(data))
            return
        self._buffer += data
        self._unsaid += len(data)
        self._at_line_start = data[-1] in b"\r\n"
        self._write()

    def end(self) -> None:
        """The host will send no more; close once all is written."""
        if self._ended or self._fd < 0:
            return
        self._ended = True
        if self._terminal:
            # A terminal has no end of file: its user types one (VEOF, termios(3)), which at the
            # start of a line is the end and elsewhere first passes the begun line on.
            mark: bytes = termios.tcgetattr(self._fd)[6][termios.VEOF]
            self._buffer += mark if self._at_line_start else mark * 2
        self._write()

    def _write(self) -> None:
        while self._buffer:
            try:
                size = os.write(self._fd, self._buffer)
            except BlockingIOError:
                return self._loop.watch(self._fd, WRITE, lambda _events: self._write())
            except OSError:  # nobody reads any more
                return self.close()
            del self._buffer[:size]
            said = min(size, self._unsaid)
            self._unsaid -= said
            self._channel.consumed(self.stream, said)
        self._loop.forget(self._fd)
        if self._ended:
            self.close()
        return None

    def strand(self, nowhere: Nowhere) -> None:
        """The host is gone and the command is not to notice: nothing more comes, and no end."""
        self._channel = nowhere

    def close(self) -> None:
        """Stop; tell the host to send no more."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._buffer.clear()
        self._channel.reset(self.stream, "closed")
