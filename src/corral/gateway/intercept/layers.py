"""mitmproxy's HTTP layers, with one gate for what comes in and one for what goes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    HttpLayer,
    HTTPMode,
    HttpStream,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
    HttpEvent,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Connection
from mitmproxy.proxy.layers.http._http2 import Http2Connection

from . import requests
from .answers import Answer, UnreadableAnswerError
from .replace import Needles

if TYPE_CHECKING:
    from mitmproxy.connection import Connection
    from mitmproxy.proxy.context import Context

MAX_HEAD = 128 << 10  # bytes of a request's or an answer's headers
_MISDIRECTED, _BAD_GATEWAY = 421, 502  # RFC 9110, 15.5.20 and 15.6.3
_BODYLESS = (204, 304)


class Watch(Protocol):
    """Whom a connection's layers ask and tell."""

    name: str
    port: int
    needles: Needles

    def trouble(self, reason: str) -> None:
        """A request could not be passed on."""

    def failure(self) -> str:
        """Why the server could not be reached, or its answer not be used: for the client."""


class Gate(HttpLayer):
    """All requests of a connection, for one host only."""

    def __init__(self, context: Context, watch: Watch) -> None:
        super().__init__(context, HTTPMode.transparent)
        self.watch = watch

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """As HttpLayer's, with a stream of ours."""
        stream = Stream(self.context.fork(), stream_id, self.watch)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        if not isinstance(event, events.DataReceived):
            return
        if _in_head(self._protocol(event.connection)) > MAX_HEAD:
            self.watch.trouble("headers of more than 128 KiB")
            yield commands.CloseConnection(event.connection)

    def _protocol(self, connection: Connection) -> object:
        """What speaks HTTP on a connection, below TLS."""
        found: object = self.connections.get(connection)
        while (child := getattr(found, "child_layer", None)) is not None:
            found = child
        return found

    @property
    def waiting(self) -> bool:
        """Whether the client has begun a head and not ended it."""
        return _in_head(self._protocol(self.context.client)) > 0

    @property
    def buffered(self) -> int:
        """Bytes that wait here because a peer does not take them (HTTP/2 has windows)."""
        total = 0
        for connection in self.connections:
            spoken = self._protocol(connection)
            if isinstance(spoken, Http2Connection):
                for queue in spoken.h2_conn.stream_buffers.values():
                    total += sum(len(each.data) for each in queue)
                for held in getattr(spoken, "stream_queue", {}).values():
                    total += sum(len(getattr(each, "data", b"")) for each in held)
        return total


def _in_head(spoken: object) -> int:
    """How many bytes there are of a head that is not complete."""
    if isinstance(spoken, Http1Connection) and spoken.state == spoken.read_headers:
        return len(spoken.buf)
    return 0


class Stream(HttpStream):
    """A request and its answer."""

    def __init__(self, context: Context, stream_id: int, watch: Watch) -> None:
        super().__init__(context, stream_id)
        self._watch = watch
        self._answer = Answer(watch.needles)
        self._refused = False  # what comes of the answer now is dropped

    def check_invalid(self, request: bool) -> layer.CommandGenerator[bool]:
        """As HttpStream's; before it looks at a request, whether that is one for this host."""
        if request:
            asked = self.flow.request
            fault = requests.fault(
                self._watch.name,
                self._watch.port,
                http1=not asked.is_http2,
                method=asked.data.method,
                target=asked.data.path,
                authority=asked.data.authority,
                scheme=asked.data.scheme,
                headers=asked.headers.fields,
            )
            if fault is not None:
                self._watch.trouble(f"a request was refused: {fault}")
                self.client_state = self.server_state = self.state_errored
                self.flow.live = False
                for event in self._refusal(_MISDIRECTED, fault):
                    yield SendHttp(event, self.context.client)
                yield DropStream(self.stream_id)
                return True
        return (yield from super().check_invalid(request))

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As HttpStream's; all that it sends to the client passes here."""
        for command in super().handle_event(event):
            if isinstance(command, SendHttp) and command.connection == self.context.client:
                for each in self._back(command.event):
                    yield SendHttp(each, self.context.client)
            else:
                yield command

    def _back(self, event: HttpEvent) -> Iterator[HttpEvent]:
        if self._refused:
            return
        try:
            yield from self._cleaned(event)
        except UnreadableAnswerError as error:
            reason = f"The answer of {self._watch.name} cannot be used: {error}."
            self._watch.trouble(reason)
            self._refused = True
            if isinstance(event, ResponseHeaders):
                yield from self._refusal(_BAD_GATEWAY, reason)
            else:
                broken = ResponseProtocolError(self.stream_id, reason, ResponseProtocolError.code)
                yield broken

    def _cleaned(self, event: HttpEvent) -> Iterator[HttpEvent]:
        """What goes back in place of an event, with no secret in it."""
        if isinstance(event, ResponseHeaders):
            event.response = self._head(event.response)
            yield event
        elif isinstance(event, ResponseData):
            for piece in self._answer.data(event.data):
                if piece:
                    yield ResponseData(self.stream_id, piece)
        elif isinstance(event, ResponseTrailers):
            yield from self._rest()
            event.trailers = http.Headers(self._answer.trailers(event.trailers.fields))
            yield event
        elif isinstance(event, ResponseEndOfMessage):
            if not self._answer.upgraded:
                yield from self._rest()
            yield event
        elif isinstance(event, ResponseProtocolError):
            event.message = self._watch.failure()
            yield event
        else:
            raise AssertionError(f"not part of an answer: {type(event).__name__}")

    def _rest(self) -> Iterator[HttpEvent]:
        rest = self._answer.end()
        if rest:
            yield ResponseData(self.stream_id, rest)

    def _head(self, response: http.Response) -> http.Response:
        """A copy: the server's connection still looks at the original to know where it ends."""
        asked = self.flow.request
        status = response.status_code
        changed = response.copy()
        changed.data.reason = self._watch.needles.clean(response.data.reason)
        changed.headers = http.Headers(
            self._answer.head(
                status,
                response.headers.fields,
                bodyless=asked.method == "HEAD" or status < 200 or status in _BODYLESS,
                chunks=asked.data.http_version == b"HTTP/1.1",
            )
        )
        return changed

    def _refusal(self, status: int, text: str) -> list[HttpEvent]:
        """An answer of our own."""
        body = f"corral: {text}\n".encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        if not self.flow.request.is_http2:
            headers["Connection"] = "close"
        answer = http.Response.make(status, body, headers)
        answer.headers = http.Headers(
            [(k.lower() if self.flow.request.is_http2 else k, v) for k, v in answer.headers.fields]
        )
        return [
            ResponseHeaders(self.stream_id, answer, end_stream=False),
            ResponseData(self.stream_id, body),
            ResponseEndOfMessage(self.stream_id),
        ]
