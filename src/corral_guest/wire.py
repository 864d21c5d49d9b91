"""The channel's protocol, spoken by host and guest: frames, streams, credit, control messages.

Sans-I/O: bytes go in, events come out, and bytes to write collect inside. Imported by both sides.
The guest imports it as process 1 under emulation, where every import and every opcode is slow:
so no typing, enum or dataclasses here, only plain classes with slots.

A frame is a header of 12 bytes (kind, three zero bytes, stream, payload length; big endian) and
its payload:

    CONTROL  stream 0   one JSON-RPC 2.0 object in UTF-8
    DATA     stream n   1 to MAX_DATA raw bytes, never more than the receiver has granted
    END      stream n   empty: the sender will send no more data
    CREDIT   stream n   four bytes: so many more bytes may be sent
    RESET    stream n   a reason in UTF-8: the stream is over in both directions
    GONE     stream n   empty: the answer to every RESET, the sender knows of no such stream now

A stream is registered by `open` on both sides before data of it arrives: its number travels in a
control message, the host allocates even numbers and the guest odd ones, each only once. It closes
when both sides have ended it, or when one side has reset it and the other has answered. Until that
answer the number stays taken and what arrives for it is dropped. So both sides know at any time
which frames are legal, without keeping a history. A number that the other side never registered
(it refused the message that named it) is got rid of by a reset too.
"""

from __future__ import annotations

from struct import Struct

from .control import (
    Call,
    Failure,
    Notification,
    ProtocolError,
    Request,
    Response,
    decode_body,
    encode_body,
    error,
    notification,
    parse_message,
    request,
    response,
)
from .frames import (
    CONTROL,
    CREDIT,
    DATA,
    END,
    GONE,
    HEADER,
    MAX_CONTROL,
    MAX_DATA,
    MAX_REASON,
    MAX_STREAM_NUMBER,
    MAX_STREAMS,
    RESET,
    VERSION,
    WINDOW,
    Credit,
    Data,
    Ended,
    Event,
    Message,
    Reset,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

__all__ = [
    "CONTROL",
    "CREDIT",
    "DATA",
    "END",
    "GONE",
    "HEADER",
    "MAX_CONTROL",
    "MAX_DATA",
    "MAX_REASON",
    "MAX_STREAMS",
    "MAX_STREAM_NUMBER",
    "RESET",
    "VERSION",
    "WINDOW",
    "Call",
    "Connection",
    "Credit",
    "Data",
    "Ended",
    "Event",
    "Failure",
    "Message",
    "Notification",
    "ProtocolError",
    "Request",
    "Reset",
    "Response",
    "StreamError",
    "decode_body",
    "error",
    "notification",
    "parse_message",
    "request",
    "response",
]

_HEADER = Struct(">III")
_U32 = Struct(">I")
_LIMITS = {CONTROL: MAX_CONTROL, DATA: MAX_DATA, END: 0, CREDIT: 4, RESET: MAX_REASON, GONE: 0}


class StreamError(Exception):
    """This side used a stream that is not open, or asked for one too many."""


class _Stream:
    """What both sides may still do on one stream.

    may_send, may_receive: credit in bytes. unread: delivered and not yet consumed. owed: consumed
    and not yet granted again. sent_reset: we reset it and wait for the answer.
    """

    __slots__ = (
        "ended_in",
        "ended_out",
        "may_receive",
        "may_send",
        "owed",
        "sent_reset",
        "unread",
    )

    def __init__(self) -> None:
        self.may_send = WINDOW
        self.may_receive = WINDOW
        self.unread = 0
        self.owed = 0
        self.ended_in = False
        self.ended_out = False
        self.sent_reset = False


class Connection:
    """One end of the channel.

    max_streams: how many streams may be open at once. max_output: more than so many bytes waiting
    to be written, because the peer does not read, is a ProtocolError; None means no limit.
    """

    __slots__ = ("_failure", "_held", "_highest", "_in", "_need", "_out", "_streams",
                 "max_output", "max_streams")  # fmt: skip

    def __init__(self, *, max_streams: int = MAX_STREAMS, max_output: int | None = None) -> None:
        self.max_streams = max_streams
        self.max_output = max_output
        self._in = bytearray()
        self._need = HEADER
        self._out = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._highest = [0, 0]  # the highest even and odd number ever opened
        self._failure: ProtocolError | None = None
        self._held: int | None = None  # bytes of _out that may be written although we hold

    # Receiving

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Take bytes from the peer and iterate over what they mean.

        Each frame is looked at only when the loop asks for it: so a handler that opens the streams
        a message names is in time for the data that follows it in the same read. Frames of a loop
        that was left early come first in the next call. Raises ProtocolError, then and ever after,
        when the peer broke the protocol.
        """
        if self._failure is None:
            self._in += data
            if len(self._in) < self._need:
                return iter(())
        return self._events()

    def _events(self) -> Iterator[Event]:
        while self._failure is None:
            buffered = self._in
            if len(buffered) < HEADER:
                self._need = HEADER
                return
            word, stream, length = _HEADER.unpack_from(buffered)
            kind = word >> 24
            if word & 0xFFFFFF or length > _LIMITS.get(kind, -1):
                self._fail(f"frame of kind {word:#010x} with {length} bytes is not allowed")
            end = HEADER + length
            if len(buffered) < end:
                self._need = end
                return
            payload = bytes(memoryview(buffered)[HEADER:end])
            # Taking from the front of a bytearray moves no bytes, so this is not quadratic.
            del buffered[:end]
            self._need = HEADER
            event = self._frame(kind, stream, payload)
            if self.max_output is not None and len(self._out) > self.max_output:
                self._fail("the peer does not read what it is sent")
            if event is not None:
                yield event
        raise self._failure

    def _frame(self, kind: int, stream: int, payload: bytes) -> Event | None:
        if kind == CONTROL:
            if stream:
                self._fail(f"a control message on stream {stream}")
            return Message(self._body(payload))
        if kind == RESET:
            return self._reset(stream, payload)
        state = self._streams.get(stream)
        if state is None:
            # Credit may cross with the END that closed the stream on this side.
            if kind == CREDIT and 0 < stream <= self._highest[stream & 1]:
                return None
            self._fail(f"a frame of kind {kind} for stream {stream}, which is not open")
        if kind == DATA:
            return self._data(state, stream, payload)
        if kind == CREDIT:
            return self._credit(state, stream, payload)
        if kind == END:
            return self._end(state, stream)
        if not state.sent_reset:
            self._fail(f"an answer to a reset of stream {stream}, which was not reset")
        del self._streams[stream]
        return None

    def _body(self, payload: bytes) -> dict[str, Any]:
        try:
            return decode_body(payload)
        except ProtocolError as error:
            self._failure = error
            raise

    def _data(self, state: _Stream, stream: int, payload: bytes) -> Event | None:
        size = len(payload)
        if not size or state.ended_in or size > state.may_receive:
            self._fail(
                f"{size} bytes on stream {stream}, which may carry {state.may_receive} more"
                + (" and had ended" if state.ended_in else "")
            )
        state.may_receive -= size
        if state.sent_reset:
            return None
        state.unread += size
        return Data(stream, payload)

    def _credit(self, state: _Stream, stream: int, payload: bytes) -> Event | None:
        if len(payload) != 4:
            self._fail(f"a grant of credit of {len(payload)} bytes")
        (size,) = _U32.unpack(payload)
        state.may_send += size
        if not size or state.may_send > WINDOW:
            self._fail(f"credit of {size} bytes for stream {stream}, more than was used")
        return None if state.sent_reset or state.ended_out else Credit(stream)

    def _end(self, state: _Stream, stream: int) -> Event | None:
        if state.ended_in:
            self._fail(f"stream {stream} ended twice")
        state.ended_in = True
        if state.sent_reset:
            return None
        if state.ended_out:
            del self._streams[stream]
        return Ended(stream)

    def _reset(self, stream: int, payload: bytes) -> Event | None:
        try:
            reason = payload.decode()
        except UnicodeDecodeError:
            self._fail("the reason of a reset is not UTF-8")
        if not stream:
            self._fail("a reset of stream 0")
        self._write(GONE, stream)
        state = self._streams.get(stream)
        if state is None or state.sent_reset:
            return None
        del self._streams[stream]
        return Reset(stream, reason)

    def _fail(self, reason: str) -> NoReturn:
        self._failure = ProtocolError(reason)
        self._in.clear()
        raise self._failure

    # Sending

    def open(self, stream: int) -> None:
        """Register a stream by its number, with a full window in both directions.

        Raises StreamError for a number that is open already or no stream number, and when
        max_streams are open.
        """
        if not 0 < stream <= MAX_STREAM_NUMBER or stream in self._streams:
            raise StreamError(f"stream {stream} is open already or not a stream number")
        if len(self._streams) >= self.max_streams:
            raise StreamError(f"{self.max_streams} streams are open already")
        self._streams[stream] = _Stream()
        if stream > self._highest[stream & 1]:
            self._highest[stream & 1] = stream

    def is_open(self, stream: int) -> bool:
        """Whether this side can still reset the stream: it is registered and was not reset."""
        state = self._streams.get(stream)
        return state is not None and not state.sent_reset

    @property
    def open_streams(self) -> int:
        """How many stream numbers are taken, those included whose reset is not answered yet."""
        return len(self._streams)

    def credit(self, stream: int) -> int:
        """How many bytes `send` would take now: 0 as well when the stream can send no more."""
        state = self._streams.get(stream)
        if state is None or state.sent_reset or state.ended_out:
            return 0
        return state.may_send

    def send_message(self, body: dict[str, Any]) -> None:
        """Queue a control message. Raises ValueError for what is not JSON or over MAX_CONTROL.

        Text that is not Unicode (a file name with stray bytes, say) is such a ValueError too.
        """
        payload = encode_body(body)
        if len(payload) > MAX_CONTROL:
            raise ValueError(f"a control message of {len(payload)} bytes, over {MAX_CONTROL}")
        self._write(CONTROL, 0, payload)

    def send(self, stream: int, data: bytes | bytearray | memoryview) -> int:
        """Queue as much of data as the credit allows; returns how many bytes that was.

        Raises StreamError when the stream is not open for sending.
        """
        state = self._sending(stream)
        size = min(len(data), state.may_send)
        state.may_send -= size
        if size <= MAX_DATA:
            if size:
                self._write(DATA, stream, data if size == len(data) else memoryview(data)[:size])
            return size
        view = memoryview(data)
        for start in range(0, size, MAX_DATA):
            self._write(DATA, stream, view[start : min(start + MAX_DATA, size)])
        return size

    def end(self, stream: int) -> None:
        """Send no more data on this stream. Raises StreamError when it is not open for sending."""
        state = self._sending(stream)
        state.ended_out = True
        if state.ended_in:
            del self._streams[stream]
        self._write(END, stream)

    def reset(self, stream: int, reason: str = "") -> None:
        """Give the stream up in both directions; nothing happens when it is not open any more."""
        state = self._streams.get(stream)
        if state is None or state.sent_reset:
            return
        state.sent_reset = True
        encoded = reason.encode("utf-8", "backslashreplace")[:MAX_REASON]
        self._write(RESET, stream, encoded.decode("utf-8", "ignore").encode())

    def consumed(self, stream: int, size: int) -> None:
        """Say that size bytes of this stream's Data were dealt with: the peer may send more.

        Credit is granted in halves of the window. Nothing happens when the stream is closed.
        Raises ValueError for more than was delivered.
        """
        state = self._streams.get(stream)
        if state is None or state.sent_reset:
            return
        if not 0 <= size <= state.unread:
            raise ValueError(f"{size} bytes consumed of {state.unread} on stream {stream}")
        state.unread -= size
        state.owed += size
        if state.owed >= WINDOW // 2 and not state.ended_in:
            self._write(CREDIT, stream, _U32.pack(state.owed))
            state.may_receive += state.owed
            state.owed = 0

    @property
    def pending_output(self) -> int:
        """Bytes that wait to be written; a caller with a slow peer bounds this."""
        return len(self._out)

    @property
    def ready_output(self) -> int:
        """How many of them `write_to` would write: all, unless they are held."""
        return len(self._out) if self._held is None else self._held

    def hold(self) -> None:
        """What is queued from now on is not written until `release`: this end falls silent."""
        self._held = len(self._out)

    def release(self) -> None:
        """End `hold`, if it has begun."""
        self._held = None

    def write_to(self, write: Callable[[memoryview], int]) -> int:
        """Hand what waits to `write` (`sock.send`, say) once; drop and count what it took."""
        ready = self.ready_output
        if not ready:
            return 0
        with memoryview(self._out) as view, view[:ready] as part:
            size = write(part)
        del self._out[:size]
        if self._held is not None:
            self._held -= size
        return size

    def take_output(self) -> bytes:
        """All that waits to be written, which the caller now owns."""
        taken = bytes(self._out)
        self._out.clear()
        return taken

    def _sending(self, stream: int) -> _Stream:
        state = self._streams.get(stream)
        if state is None or state.sent_reset or state.ended_out:
            raise StreamError(f"stream {stream} is not open for sending")
        return state

    def _write(self, kind: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> None:
        self._out += _HEADER.pack(kind << 24, stream, len(payload))
        self._out += payload
