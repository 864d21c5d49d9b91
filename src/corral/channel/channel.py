"""The host side of the channel over one connected socket: calls, notifications, streams.

There is no task and no queue here. The event loop says when the socket can be read; one buffer of
it is decoded and dealt with in the same turn, then other tasks have theirs. So a guest that floods
the channel is slowed by the socket's buffer and can take no memory. What it can make us hold is
bounded: unread bytes of a stream by its credit, control messages by nothing being kept of them,
answers to its frames by MAX_OUTPUT. A guest that breaks the protocol, or does not read while it
goes on sending, is cut off: every waiting call and stream gets a ChannelError.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, assert_never

from corral.channel.failures import again, printable
from corral.channel.stream import Stream
from corral.errors import ChannelError, CorralError, GuestError, SandboxGoneError
from corral_guest import wire

# Handlers run inside the read loop: quick, not async. What they open is open before the guest's
# next frame is looked at. A ValueError or CorralError from one ends the channel.
Handler = Callable[[dict[str, object]], None]

READ_SIZE = 1 << 17
ROOM = 1 << 18  # writers queue so many bytes for the guest, and wait from half of it on
MAX_OUTPUT = (
    4 << 20
)  # one message of MAX_CONTROL over ROOM is normal; this is a guest that is stuck
MAX_CALLS = 1024
LAST_READS = 64


class Channel:
    """Calls and streams to one guest. Make it with `start`; use it as an async context manager."""

    def __init__(
        self, sock: socket.socket, handlers: Mapping[str, Handler], *, peer: str = "the guest"
    ) -> None:
        self.connection = wire.Connection(max_output=MAX_OUTPUT)
        self.room_made = asyncio.Event()
        self.room_made.set()
        self.peer = peer
        self._socket = sock
        self._handlers = dict(handlers)
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._streams: dict[int, Stream] = {}
        self._calls: dict[int, asyncio.Future[object]] = {}
        self._next_call = 1
        self._next_stream = 2
        self._writing = False
        self._mute = False
        self._failure: CorralError | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def start(
        cls,
        sock: socket.socket,
        handlers: Mapping[str, Handler] | None = None,
        *,
        peer: str = "the guest",
    ) -> Channel:
        """Take over a connected stream socket, already proven where that is needed.

        handlers: for each notification that the guest may send, by method. One that has no handler
        ends the channel. peer: what the other end is called in errors.
        """
        sock.setblocking(False)
        channel = cls(sock, handlers or {}, peer=peer)
        channel._loop.add_reader(sock, channel._read)
        return channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def handle(self, method: str, handler: Handler) -> None:
        """Call handler with the params of each notification `method`; it replaces an older one."""
        self._handlers[method] = handler

    async def call(
        self,
        method: str,
        params: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit is part of the error message
    ) -> object:
        """Ask the guest; returns the result, which is any JSON value: check it before use.

        timeout: seconds, or None to wait as long as the channel lives. Raises GuestError when the
        guest answers with an error, ChannelError when it does not answer in time or the channel
        ended by its fault, SandboxGoneError when it closed the channel, ValueError for params that
        are not JSON. After a cancelled or timed out call the channel can be used; a late answer is
        dropped.
        """
        return await self._call(method, params, timeout, hold=False)

    async def suspend(self, method: str, timeout: float) -> object:  # noqa: ASYNC109 - as in `call`
        """Ask, and be silent from then on, until `resume`: what is queued later waits here.

        With the answer both directions are empty, at the end of a frame. Raises like `call`.
        """
        return await self._call(method, None, timeout, hold=True)

    def resume(self) -> None:
        """End `suspend`, however that went."""
        self.connection.release()
        self.flush()

    async def _call(
        self,
        method: str,
        params: Mapping[str, object] | None,
        timeout: float | None,  # noqa: ASYNC109 - as in `call`
        *,
        hold: bool,
    ) -> object:
        try:
            async with asyncio.timeout(timeout):
                await self._wait_for_room()
                answer = self._ask(method, dict(params or {}), hold=hold)
                return await answer
        except TimeoutError:
            raise ChannelError(
                f"{self.peer} did not answer {method} within {timeout:g} seconds.",
                hint="See the guest's console (--console) for what it is doing.",
            ) from None

    async def notify(self, method: str, params: Mapping[str, object] | None = None) -> None:
        """Tell the guest something, without an answer. Raises like `call`."""
        await self._wait_for_room()
        self.connection.send_message(wire.notification(method, dict(params or {})))
        self.flush()

    def open_stream(self) -> Stream:
        """A new stream; send its `id` to the guest in a call, and write or end it after the answer.

        The guest registers it while it deals with that call. When the call fails, reset the
        stream; that is right at any time. Raises ChannelError when too many are open.
        """
        number = self._next_stream
        stream = self._register(number)
        self._next_stream += 2
        return stream

    def accept_stream(self, number: object) -> Stream:
        """The stream that the guest named in a message; to be called inside the handler.

        number: as the guest sent it, unchecked. Raises ChannelError unless it is a free odd number.
        """
        if type(number) is not int or not number % 2:
            raise ChannelError(f"{self.peer} named a stream by something that is no odd number.")
        return self._register(number)

    async def wait_closed(self) -> CorralError:
        """Wait until the channel has ended; returns why."""
        await self._closed.wait()
        return again(self._ended())

    async def aclose(self) -> None:
        """Close the socket. What still waits fails with ChannelError."""
        self._fail(ChannelError("the channel was closed."))

    @property
    def failure(self) -> CorralError | None:
        """Why the channel has ended, or None while it works."""
        return self._failure

    @property
    def open_streams(self) -> int:
        """How many streams are open: until both sides have ended them, or answered a reset."""
        return self.connection.open_streams

    # Calls

    def _ask(self, method: str, params: dict[str, object], *, hold: bool) -> asyncio.Future[object]:
        if len(self._calls) >= MAX_CALLS:
            raise ChannelError(f"{self.peer} left {MAX_CALLS} calls without an answer.")
        number = self._next_call
        self.connection.send_message(wire.request(number, method, params))
        self._next_call += 1
        answer: asyncio.Future[object] = self._loop.create_future()
        self._calls[number] = answer
        if hold:
            self.connection.hold()
        self.flush()
        return answer

    async def _wait_for_room(self) -> None:
        while self._failure is None and not self.room():
            await self.room_made.wait()
        if self._failure is not None:
            raise again(self._failure)

    def _register(self, number: int) -> Stream:
        if self._failure is not None:
            raise again(self._failure)
        try:
            self.connection.open(number)
        except wire.StreamError as error:
            raise ChannelError(f"{error}.") from error
        stream = self._streams[number] = Stream(self, number)
        return stream

    # For streams

    def room(self) -> int:
        """How many bytes may be queued for the guest now."""
        pending = self.connection.pending_output
        return ROOM - pending if pending <= ROOM // 2 else 0  # no crumbs: half of it or nothing

    def forget(self, stream: int) -> None:
        """Deliver nothing to the stream any more."""
        self._streams.pop(stream, None)

    def flush(self) -> None:
        """Write what the socket takes of what is queued; the event loop does the rest."""
        if self._failure is not None:
            return
        if self._mute:
            self.connection.take_output()
            return
        try:
            while self.connection.ready_output:
                self.connection.write_to(self._socket.send)
        except (BlockingIOError, InterruptedError):
            self._want_write(True)
        except OSError:
            # It is gone, but what it said before may still be in our buffer: hear that first.
            self._mute = True
            self._want_write(False)
            self._loop.call_soon(self._hear_last_words)
        else:
            self._want_write(False)
        if self.room():
            self.room_made.set()
        else:
            self.room_made.clear()

    def _want_write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._socket, self.flush)
            else:
                self._loop.remove_writer(self._socket)

    # Receiving

    def _read(self) -> bool:
        """Deal with one buffer of what has arrived; False when there is none."""
        try:
            size = self._socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._gone(error)
            return False
        if not size:
            self._gone(None)
            return False
        try:
            for event in self.connection.receive(self._buffer[:size]):
                self._dispatch(event)
                if self._failure is not None:
                    return False
        except wire.ProtocolError as error:
            self._fail(ChannelError(f"{self.peer} broke the protocol: {error}."), error)
        self.flush()
        return self._failure is None

    def _hear_last_words(self) -> None:
        for _ in range(LAST_READS):
            if self._failure is not None or not self._read():
                break
        self._gone(None)

    def _gone(self, error: OSError | None) -> None:
        said = f": {error.strerror}" if error is not None else ""
        self._fail(SandboxGoneError(f"{self.peer} closed the channel{said}."), error)

    def _dispatch(self, event: wire.Event) -> None:
        match event:
            case wire.Data():
                if stream := self._streams.get(event.stream):
                    stream.deliver(event.data)
            case wire.Credit():
                if stream := self._streams.get(event.stream):
                    stream.deliver_credit()
            case wire.Ended():
                if stream := self._streams.get(event.stream):
                    stream.deliver_end()
            case wire.Reset():
                if stream := self._streams.get(event.stream):
                    stream.deliver_reset(event.reason)
            case wire.Message():
                self._dispatch_message(wire.parse_message(event.body))
            case _:
                assert_never(event)

    def _dispatch_message(self, message: wire.Call) -> None:
        match message:
            case wire.Notification():
                self._notice(message.method, message.params)
            case wire.Response():
                answer = self._answered(message.id)
                if not answer.done():
                    answer.set_result(message.result)
            case wire.Failure():
                answer = self._answered(message.id)
                if not answer.done():
                    text = printable(message.message)
                    answer.set_exception(GuestError(text, code=message.code, data=message.data))
            case wire.Request():
                raise wire.ProtocolError("a request, which only the host makes")
            case _:
                assert_never(message)

    def _answered(self, number: int) -> asyncio.Future[object]:
        answer = self._calls.pop(number, None)
        if answer is None:
            raise wire.ProtocolError(f"an answer to call {number}, which nobody waits for")
        return answer

    def _notice(self, method: str, params: dict[str, object]) -> None:
        handler = self._handlers.get(method)
        if handler is None:
            raise wire.ProtocolError(f"a notification {method}, which nobody expects")
        try:
            handler(params)
        except (ValueError, CorralError) as error:
            text = printable(str(error))
            self._fail(ChannelError(f"{self.peer}'s notification {method} is wrong: {text}"), error)
        except BaseException as error:
            # A fault of ours: the event loop reports it, and nobody waits for ever.
            self._fail(ChannelError(f"handling the notification {method} failed."), error)
            raise

    # The end

    def _ended(self) -> CorralError:
        return self._failure or ChannelError("the channel was closed.")

    def _fail(self, failure: CorralError, cause: BaseException | None = None) -> None:
        """End the channel, once: close the socket and wake everything that waits."""
        if self._failure is not None:
            return
        failure.__cause__ = cause
        self._failure = failure
        self._loop.remove_reader(self._socket)
        self._want_write(False)
        self._socket.close()
        for stream in list(self._streams.values()):
            stream.fail(failure)
        self._streams.clear()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(again(failure))
        self._calls.clear()
        self.room_made.set()
        self._closed.set()
