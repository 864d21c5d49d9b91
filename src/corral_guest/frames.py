"""Frames of the channel's protocol: their kinds, their limits, and what arrives, as values.

Users import all of this from `wire`, which says what a frame is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2

CONTROL, DATA, END, CREDIT, RESET, GONE = 1, 2, 3, 4, 5, 6

HEADER = 12
# Linux takes at most 32 KiB in one write to a virtio port (port_fops_write in
# drivers/char/virtio_console.c): a full frame with its header is exactly one such write.
MAX_DATA = 32768 - HEADER
# A request to run something carries its arguments and environment.
MAX_CONTROL = 1 << 20
MAX_REASON = 1024
# Bytes in flight for each stream and direction. Enough for 250 MB/s at a round trip of one
# millisecond, and with MAX_STREAMS it bounds what a peer can make us hold: 256 MiB.
WINDOW = 1 << 18
MAX_STREAMS = 1024
MAX_STREAM_NUMBER = (1 << 32) - 1


class Message:
    """A control message: any JSON object; `parse_message` checks that it is JSON-RPC."""

    __slots__ = ("body",)

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body


class Data:
    """Bytes arrived on a stream; say `consumed` when they have been dealt with."""

    __slots__ = ("data", "stream")

    def __init__(self, stream: int, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Ended:
    """The peer will send no more data on this stream."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class Reset:
    """The peer gave the stream up; it is closed, nothing more can be sent on it."""

    __slots__ = ("reason", "stream")

    def __init__(self, stream: int, reason: str) -> None:
        self.stream = stream
        self.reason = reason


class Credit:
    """More may be sent on this stream."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


Event = Message | Data | Ended | Reset | Credit
