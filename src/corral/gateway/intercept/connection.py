"""One intercepted connection: mitmproxy's layers, and our hooks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from mitmproxy import http, tls
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, mode_specs, server, tunnel
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer

from . import requests
from .answers import request_fields
from .layers import Gate
from .messages import Misplaced, Preface, Trouble
from .replace import Watcher, basic_credentials, inject, mentions

if TYPE_CHECKING:
    from types import TracebackType

    from .held import Held
    from .service import Service

DIAL_TIMEOUT, DIAL_LIMIT = 8.0, 20.0  # seconds for each address, and for all of them
HEAD_TIMEOUT = 30.0  # seconds until TLS is up, and for each head of a request
END_TIMEOUT = 2.0  # seconds for a connection to end at the end of the process
IDLE_TIMEOUT = 900  # seconds without a byte; the engine has a limit of its own
MOST_BUFFERED = 4 << 20  # bytes; then no more is read until the peer takes some

_OPTIONS: dict[str, tuple[type, object]] = {
    "connection_strategy": (str, "lazy"),
    "keep_host_header": (bool, True),
    "validate_inbound_headers": (bool, True),
    "normalize_outbound_headers": (bool, True),
    "body_size_limit": (str, None),
    "stream_large_bodies": (str, None),
    "store_streamed_bodies": (bool, False),
    "http2": (bool, True),
    "http2_ping_keepalive": (int, 0),
    "websocket": (bool, False),
    "rawtcp": (bool, True),
    "tcp_timeout": (int, IDLE_TIMEOUT),
}


def options() -> Options:
    """mitmproxy's options, as its layers look at them; nothing is read from a file."""
    made = Options()
    for name, (kind, value) in _OPTIONS.items():
        if name not in made:
            typespec = kind | None if value is None else kind
            made.add_option(name, typespec, value, "")
        else:
            setattr(made, name, value)
    return made


class Intercepted(server.LiveConnectionHandler):
    """A connection of an agent to a host of a secret."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        preface: Preface,
        service: Service,
    ) -> None:
        super().__init__(reader, writer, service.options, mode_specs.ProxyMode.parse("transparent"))
        # Of a Unix socket, which has no names; mitmproxy's texts want some.
        self.client.peername = self.client.sockname = ("agent", preface.agent)
        self.name, self.port = preface.name, preface.port
        self.needles = service.needles
        self._preface = preface
        self._service = service
        self._held = [h for h in service.held if requests.belongs(self.name, self.port, h.hosts)]
        self._why = ""  # the server cannot be used
        self._room = asyncio.Event()
        self._room.set()
        self._deadline: asyncio.TimerHandle | None = None
        self.timeout_watchdog = server.TimeoutWatchdog(IDLE_TIMEOUT, self.on_timeout)
        context = self.layer.context
        context.layers.clear()
        self._dialled = preface.to_port or preface.port
        context.server = Server(address=(preface.addresses[0], self._dialled))
        context.server.sni = self.name
        stack = tunnel.LayerStack()
        stack /= ServerTLSLayer(context)
        stack /= ClientTLSLayer(context)
        self._gate = Gate(context, self)
        stack /= self._gate
        self.layer = stack[0]

    # For the layers

    def trouble(self, reason: str) -> None:
        """Tell the host."""
        self._service.tell(Trouble(agent=self._preface.agent, host=self.name, reason=reason))

    def failure(self) -> str:
        """Why the server cannot be used. Nothing of what it said is in it."""
        return self._why or f"corral: the answer of {self.name} was cut short or is not HTTP."

    # Driven by mitmproxy

    async def handle_client(self) -> None:
        """Until the connection ends, or this is cancelled; then nothing of it is left."""
        self._expect_soon()
        # mitmproxy's own tasks end in order only when the client's does, not when this one is
        # cancelled.
        work = asyncio.create_task(super().handle_client(), name="intercepted connection")
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._end()
            await asyncio.wait((work,), timeout=END_TIMEOUT)
            raise
        finally:
            work.cancel()
            self._expect_nothing()

    async def server_event(self, event: events.Event) -> None:
        """As mitmproxy's; then bounds."""
        await super().server_event(event)
        if not self.client.tls_established or self._gate.waiting:
            self._expect_soon()
        else:
            self._expect_nothing()
        if self._gate.buffered < MOST_BUFFERED:
            self._room.set()
        else:
            self._room.clear()

    async def drain_writers(self) -> None:
        """Wait until what was sent is taken; what a peer reads must go on while others wait."""
        await super().drain_writers()  # type: ignore[no-untyped-call]  # mitmproxy's
        client = self.transports.get(self.client)
        if client is None or asyncio.current_task() is not client.handler:
            await self._room.wait()

    def _expect_soon(self) -> None:
        """Give a handshake, or a head, its time. It is not renewed by what comes meanwhile."""
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(HEAD_TIMEOUT, self._end)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        transport = self.transports.get(self.client)
        if transport is not None and transport.handler is not None:
            transport.handler.cancel("too slow, or broken")

    def log(
        self,
        message: str,
        level: int = logging.INFO,
        exc_info: Literal[True]
        | tuple[type[BaseException], BaseException, TracebackType | None]
        | None = None,
    ) -> None:
        """mitmproxy's own words may hold what was sent, so they go nowhere.

        An error is a fault in it that it would go on after: the connection is ended instead.
        """
        if level >= logging.ERROR:
            self.trouble("the connection was ended after a fault in mitmproxy")
            self._end()

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Dial the first of the given addresses that answers, and none else."""
        upstream = command.connection
        error = ""
        streams = None
        began = asyncio.get_running_loop().time()
        for address in self._preface.addresses:
            try:
                async with asyncio.timeout(DIAL_TIMEOUT), asyncio.timeout_at(began + DIAL_LIMIT):
                    streams = await asyncio.open_connection(address, self._dialled)
                break
            except (OSError, TimeoutError) as failed:
                error = _reason(failed)
        if streams is None:
            self._why = f"corral: {self.name} cannot be reached: {error}."
            self.trouble(f"it cannot be reached: {error}")
            upstream.error = error
            await self.server_event(events.OpenConnectionCompleted(command, error))
            return
        reader, writer = streams
        upstream.state = ConnectionState.OPEN
        upstream.peername = writer.get_extra_info("peername")[:2]
        upstream.sockname = writer.get_extra_info("sockname")[:2]
        upstream.timestamp_start = upstream.timestamp_tcp_setup = 0.0
        self.transports[upstream] = server.ConnectionIO(
            handler=asyncio.current_task(), reader=reader, writer=writer
        )
        await self.server_event(events.OpenConnectionCompleted(command, None))
        with contextlib.suppress(OSError):
            await self.handle_connection(upstream)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """What mitmproxy asks and tells. It would wait without end after a fault of ours."""
        try:
            self._answer(hook.name, *hook.args())
        except Exception as error:  # whatever it is: nothing of this connection goes on
            self.trouble(f"the connection was ended after a fault ({type(error).__name__})")
            self._end()

    def _answer(self, name: str, data: Any) -> None:
        match name:
            case "tls_clienthello":
                self._hello(data)
            case "tls_start_client":
                self._start_client(data)
            case "tls_start_server":
                self._start_server(data)
            case "tls_established_server":
                self._established(data)
            case "tls_failed_server":
                self._failed(data)
            case "requestheaders":
                self._request(data)
            case "responseheaders":
                data.response.stream = True
            case "tcp_message":
                data.messages.clear()  # after an upgrade; mitmproxy would keep them all
            case _:
                pass

    # TLS

    def _hello(self, data: tls.ClientHelloData) -> None:
        """Reach the server first, so that the client gets the protocol that it speaks."""
        data.establish_server_tls_first = self._named(data.client_hello.sni)
        if not data.establish_server_tls_first:
            self.trouble("TLS for another name than the connection's, or for none")

    def _named(self, sni: str | None) -> bool:
        return (sni or "").lower().removesuffix(".") == self.name

    def _start_client(self, data: tls.TlsData) -> None:
        if self._named(self.client.sni):  # without a context mitmproxy closes the connection
            leaf = self._service.authority.leaf(self.name)
            upstream = data.context.server
            spoken = upstream.alpn if upstream.tls_established else None
            data.ssl_conn = self._service.handshakes.to_client(leaf, spoken)

    def _start_server(self, data: tls.TlsData) -> None:
        upstream = data.conn
        assert isinstance(upstream, Server)
        if self.client.tls_established:
            offers = [self.client.alpn] if self.client.alpn else []
        else:
            offers = [each for each in self.client.alpn_offers if each in (b"h2", b"http/1.1")]
        upstream.alpn_offers = offers
        upstream.sni = self.name
        data.ssl_conn = self._service.handshakes.to_server(self.name, offers)

    def _established(self, data: tls.TlsData) -> None:
        """HTTP/2 of a client is never sent on as HTTP/1: their ideas of a request's end differ."""
        speaks, upstream = self.client.alpn, data.conn
        if self.client.tls_established and (speaks == b"h2") != (upstream.alpn == b"h2"):
            self._why = f"corral: {self.name} speaks another version of HTTP than before."
            upstream.error = self._why
            self.close_connection(upstream)

    def _failed(self, data: tls.TlsData) -> None:
        reason = data.conn.error or ""
        if not reason.startswith("Certificate verify failed"):
            reason = "the TLS handshake failed"
        self._why = f"corral: {self.name} is not trusted or not reached: {reason}."
        self.trouble(reason)

    # Requests

    def _request(self, flow: http.HTTPFlow) -> None:
        """Put the secrets in, in their header and nowhere else."""
        asked = flow.request
        if flow.error:
            return
        http1 = not asked.is_http2
        fields = []
        for key, value in request_fields(asked.headers.fields, http1=http1):
            fields.append((key, self._header(key.lower(), value)))
        asked.headers = http.Headers(fields)
        for held in self._service.held:
            if held.placeholder in asked.data.path:
                self._misplaced(held, "URL")
        asked.stream = self._watching()

    def _header(self, name: bytes, value: bytes) -> bytes:
        for held in self._service.held:
            if not mentions(value, held.placeholder):
                continue
            if held not in self._held or name != held.header:
                self._misplaced(held, f"header {name.decode('latin-1')}")
                continue
            given = value
            value = inject(value, held.placeholder, held.secret) or value
            if basic_credentials(given) is not None:
                self.needles.add_credentials(value[6:].strip(), given[6:].strip())
        return value

    def _watching(self) -> Callable[[bytes], bytes]:
        """A stream function (mitmproxy's) that passes a body on and looks for placeholders."""
        watcher = Watcher({held.name: held.placeholder for held in self._service.held})
        by_name = {held.name: held for held in self._service.held}

        def look(data: bytes) -> bytes:
            for name in watcher.feed(data):
                self._misplaced(by_name[name], "body")
            return data

        return look

    def _misplaced(self, held: Held, where: str) -> None:
        agent = self._preface.agent
        self._service.tell(
            Misplaced(secret=held.name, agent=agent, host=self.name, where=where[:80])
        )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    assert isinstance(error, OSError)
    return (error.strerror or "it cannot be dialled").lower()
