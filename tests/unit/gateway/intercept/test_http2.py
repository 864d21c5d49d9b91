"""The same promises where client and server speak HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from corral.gateway.intercept import connection, layers
from tests.support.https import Request, TestAuthority, plain, serving, serving_http2

from .conftest import HOST, PLACEHOLDER, SECRET, intercepting


class Client:
    """An HTTP/2 client without checks of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding="latin-1",
        )
        self.speaker = h2.connection.H2Connection(config)
        self.speaker.initiate_connection()

    async def ask(
        self, headers: list[tuple[str, str]], *pieces: bytes
    ) -> tuple[dict[str, str], bytes]:
        """One request; headers and body of the answer. Status "reset" or "gone" without one."""
        stream = self.speaker.get_next_available_stream_id()
        self.speaker.send_headers(stream, headers, end_stream=not pieces)
        for number, piece in enumerate(pieces):
            self.speaker.send_data(stream, piece, end_stream=number == len(pieces) - 1)
        self.writer.write(self.speaker.data_to_send())
        back, body = {":status": "gone"}, b""
        async for event in self._events():
            if getattr(event, "stream_id", stream) != stream:
                continue
            match event:
                case h2.events.ResponseReceived():
                    back = {str(k): str(v) for k, v in event.headers or []}
                case h2.events.DataReceived():
                    body += event.data
                    self.speaker.acknowledge_received_data(event.flow_controlled_length, stream)
                case h2.events.StreamReset():
                    return {":status": "reset"}, body
                case h2.events.StreamEnded():
                    return back, body
        return back, body

    async def _events(self) -> AsyncIterator[h2.events.Event]:
        while True:
            try:
                data = await asyncio.wait_for(self.reader.read(65536), 10)
            except OSError:
                return
            if not data:
                return
            for event in self.speaker.receive_data(data):
                yield event
            self.writer.write(self.speaker.data_to_send())


def head(authority: str, *more: tuple[str, str], path: str = "/") -> list[tuple[str, str]]:
    """A request's headers."""
    pseudo = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", authority)]
    return [*pseudo, *more]


async def test_the_secret_goes_out_and_does_not_come_back(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    def answer(request: Request) -> list[bytes]:
        text = f"you are {request.header('authorization')}!\n".encode()
        return [text[:30], text[30:]]

    async with serving_http2(upstreams.context(HOST, h2=True), answer) as server:
        authority = f"{HOST}:{server.port}"
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port, "h2", "http/1.1") as (reader, writer):
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
                client = Client(reader, writer)
                for _ in range(3):
                    given = ("authorization", f"Bearer {PLACEHOLDER}")
                    back, body = await client.ask(head(authority, given), b"some ", b"body")
                    assert back[":status"] == "200"
                    assert back["x-echo"] == f"Bearer {PLACEHOLDER}"
                    assert body == f"you are Bearer {PLACEHOLDER}!\n".encode()
    assert len(server.requests) == 3 and server.connections == 1
    assert server.requests[0].header("authorization") == f"Bearer {SECRET}"
    assert server.requests[0].header("accept-encoding") == "identity"
    assert server.requests[0].body == b"some body"


async def test_another_authority_is_refused_also_later(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving_http2(upstreams.context(HOST, h2=True), lambda _request: []) as server:
        authority = f"{HOST}:{server.port}"
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for bad in (
                head("other.example.test"),
                head(""),
                head(authority, ("host", "other.example.test")),
                head(f"x@{authority}"),
                [pair for pair in head(authority) if pair[0] != ":authority"],
                [(k, "http" if k == ":scheme" else v) for k, v in head(authority)],
            ):
                async with door.tls(server.port, "h2") as (reader, writer):
                    client = Client(reader, writer)
                    good, _ = await client.ask(head(authority))
                    assert good[":status"] == "200"
                    back, body = await client.ask(bad)
                    assert back[":status"] in ("421", "400", "gone"), bad
                    assert not body or body.startswith(b"corral:")
                    if back[":status"] == "421":  # of this request only
                        good, _ = await client.ask(head(authority))
                        assert good[":status"] == "200"
    assert all(got.header(":authority") == authority for got in server.requests)


async def test_line_breaks_in_headers_make_no_second_request(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving_http2(upstreams.context(HOST, h2=True), lambda _request: []) as server:
        authority = f"{HOST}:{server.port}"
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for bad in (
                head(authority, ("x-a", "1\r\n\r\nGET / HTTP/1.1\r\nHost: other\r\n\r\n")),
                head(authority, ("x\r\nhost", "other.example.test")),
                head(authority, path="/ HTTP/1.1\r\nHost: other.example.test\r\n\r\n"),
                head(authority, ("transfer-encoding", "chunked")),
            ):
                async with door.tls(server.port, "h2") as (reader, writer):
                    back, _ = await Client(reader, writer).ask(bad)
                    assert back[":status"] in ("421", "400", "gone", "reset"), bad
    assert server.requests == []


async def test_a_client_gets_the_protocol_that_the_server_speaks(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """So HTTP/2 is never translated into HTTP/1, whose idea of a request's end is another."""
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port, "h2", "http/1.1") as (_reader, writer):
                chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    assert chosen == "http/1.1"


async def test_a_client_that_takes_nothing_fills_no_memory(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP/2 has windows: while a client opens none, nothing is read from the server."""
    limit, most = 200_000, 0
    monkeypatch.setattr(connection, "MOST_BUFFERED", limit)
    count = vars(layers.Gate)["buffered"].fget

    def watched(gate: layers.Gate) -> int:
        nonlocal most
        now: int = count(gate)
        most = max(most, now)
        return now

    monkeypatch.setattr(layers.Gate, "buffered", property(watched))
    piece = b"z" * 16_000
    async with serving_http2(
        upstreams.context(HOST, h2=True), lambda _request: [piece] * 64
    ) as server:
        authority = f"{HOST}:{server.port}"
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port, "h2") as (reader, writer):
                client = Client(reader, writer)
                for _ in range(20):  # 20 MB
                    stream = client.speaker.get_next_available_stream_id()
                    client.speaker.send_headers(stream, head(authority), end_stream=True)
                writer.write(client.speaker.data_to_send())
                got, stopped = 0, False
                while got < 20 * 64 * len(piece):
                    try:
                        data = await asyncio.wait_for(reader.read(65536), 10 if stopped else 0.5)
                    except TimeoutError:
                        assert not stopped, "nothing comes though the window is open"
                        stopped = True
                        # At first the window is 64 KiB (RFC 9113, 6.9.2).
                        for each in (None, *range(1, 40, 2)):
                            client.speaker.increment_flow_control_window(1 << 30, each)
                        writer.write(client.speaker.data_to_send())
                        continue
                    for event in client.speaker.receive_data(data):
                        if isinstance(event, h2.events.DataReceived):
                            got += len(event.data)
                    writer.write(client.speaker.data_to_send())
    assert stopped
    assert limit <= most < limit + (1 << 20)
