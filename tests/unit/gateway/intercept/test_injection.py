"""A placeholder becomes the secret in one header, for one host, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from corral.gateway.intercept import connection
from corral.gateway.intercept.messages import Misplaced
from tests.support.https import TestAuthority, plain, raw, serving

from .conftest import (
    HOST,
    OTHER_HOST,
    OTHER_PLACEHOLDER,
    OTHER_SECRET,
    PLACEHOLDER,
    SECRET,
    intercepting,
    request,
)


async def test_the_secret_is_in_the_named_header(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            back = await door.ask(
                server.port, request(f"Authorization: Bearer {PLACEHOLDER}", port=server.port)
            )
    assert back.startswith(b"HTTP/1.1 200 OK") and back.endswith(b"\r\n\r\nhello")
    assert server.requests[0].header("authorization") == f"Bearer {SECRET}"
    assert server.requests[0].header("host") == f"{HOST}:{server.port}"
    assert server.sni == [HOST]
    assert door.words == []


async def test_basic_credentials_are_encoded_again(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    given = base64.b64encode(f"x-access-token:{PLACEHOLDER}".encode()).decode()
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            line = f"Authorization: Basic {given}"
            await door.ask(server.port, request(line, port=server.port))
    sent = server.requests[0].header("authorization").removeprefix("Basic ")
    assert base64.b64decode(sent) == f"x-access-token:{SECRET}".encode()


@pytest.mark.parametrize(
    ("headers", "path", "body", "where"),
    [
        ((f"X-Other: {PLACEHOLDER}",), "/", b"", "header x-other"),
        ((f"Cookie: a={PLACEHOLDER}",), "/", b"", "header cookie"),
        ((), f"/?token={PLACEHOLDER}", b"", "URL"),
        ((), "/", f"token={PLACEHOLDER}".encode(), "body"),
    ],
)
async def test_elsewhere_the_placeholder_stays_and_is_told(
    tmp_path: Path,
    upstreams: TestAuthority,
    headers: tuple[str, ...],
    path: str,
    body: bytes,
    where: str,
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            await door.ask(server.port, request(*headers, path=path, body=body, port=server.port))
    got = server.requests[0]
    assert SECRET not in repr(got)
    assert got.path == path and got.body == body
    assert all(header in [f"{k}: {v}" for k, v in got.headers] for header in headers)
    assert door.words == [Misplaced(secret="TOKEN", agent=1, host=HOST, where=where)]


async def test_a_secret_goes_to_its_own_hosts_only(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving(upstreams.context(OTHER_HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            lines = (f"Authorization: Bearer {PLACEHOLDER}", f"X-Api-Key: {OTHER_PLACEHOLDER}")
            asked = request(*lines, host=OTHER_HOST, port=server.port)
            await door.ask(server.port, asked, name=OTHER_HOST)
    assert server.requests[0].header("authorization") == f"Bearer {PLACEHOLDER}"
    assert server.requests[0].header("x-api-key") == OTHER_SECRET
    assert [word.secret for word in door.words if isinstance(word, Misplaced)] == ["TOKEN"]


async def test_a_host_or_port_without_a_secret_is_not_served(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for name, port in (("elsewhere.example.test", server.port), (HOST, server.port ^ 1)):
                async with door.raw(port, name=name) as (reader, _writer):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert server.connections == 0


async def test_a_streamed_body_goes_on_as_it_comes(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """Neither direction waits for the end of a message."""
    arrived = asyncio.Event()

    async def talk(got: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await writer.drain()
            await arrived.wait()
            arrived.clear()
        writer.write(b"0\r\n\r\n")

    async with serving(upstreams.context(HOST), talk) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                writer.write(request(port=server.port))
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                for number in range(3):
                    event = await asyncio.wait_for(reader.readuntil(b"\n\n\r\n"), 10)
                    assert b"data: %d" % number in event
                    arrived.set()
                assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)


async def test_redirects_are_the_clients_to_follow(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    moved = plain(b"", b"Location: https://elsewhere.example.test/", status=b"302 Found")
    async with serving(upstreams.context(HOST), moved) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            back = await door.ask(server.port, request(port=server.port))
    assert back.startswith(b"HTTP/1.1 302 Found") and b"https://elsewhere.example.test/" in back
    assert server.connections == 1


async def test_a_websocket_passes_and_its_text_is_clean(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    text = f"you are {SECRET}".encode()
    frame = bytes((0x81, len(text))) + text
    upgrade = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    ping = b"\x89\x04ping"
    async with serving(upstreams.context(HOST), raw(upgrade, frame, ping)) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                writer.write(
                    request(
                        "Connection: Upgrade",
                        "Upgrade: websocket",
                        "Sec-WebSocket-Version: 13",
                        "Sec-WebSocket-Extensions: permessage-deflate",
                        f"Authorization: Bearer {PLACEHOLDER}",
                        port=server.port,
                    )
                )
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                rest = await asyncio.wait_for(reader.readexactly(len(frame) + len(ping)), 10)
    assert head.startswith(b"HTTP/1.1 101")
    assert rest == frame.replace(SECRET.encode(), PLACEHOLDER.encode()) + ping
    got = server.requests[0]
    assert got.header("authorization") == f"Bearer {SECRET}"
    assert got.header("upgrade") == "websocket" and not got.header("sec-websocket-extensions")


async def test_a_server_that_closes_between_requests_is_dialled_again(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """Without saying so: the client's connection stays."""

    async def once(_request: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with serving(upstreams.context(HOST), once) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port, "h2", "http/1.1") as (reader, writer):
                for number in range(3):
                    writer.write(request(f"Authorization: {PLACEHOLDER}", port=server.port))
                    await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                    async with asyncio.timeout(10):
                        while server.closed <= number:
                            await server.more.wait()
                            server.more.clear()
    assert [got.header("authorization") for got in server.requests] == [SECRET] * 3
    assert server.connections == 3


async def test_a_client_that_waits_to_be_told_to_go_on(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """Expect: 100-continue, as curl says with large bodies."""
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                head = request("Expect: 100-continue", body=b"x" * 10, port=server.port)
                writer.write(head[:-10])
                back = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                assert back.startswith(b"HTTP/1.1 100")
                writer.write(b"x" * 10)
                await asyncio.wait_for(reader.readuntil(b"hello"), 10)
    assert server.requests[0].body == b"x" * 10


async def test_an_answer_without_a_body_keeps_its_length(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    lines = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Encoding: br\r\n\r\n"
    async with serving(upstreams.context(HOST), raw(lines)) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            asked = request(port=server.port).replace(b"GET", b"HEAD", 1)
            back = await door.ask(server.port, asked)
    assert b"Content-Length: 12345" in back and back.endswith(b"\r\n\r\n")


async def test_a_fault_of_ours_ends_the_connection(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the interceptor; nothing waits."""

    def broken(*_arguments: object) -> None:
        raise RuntimeError(SECRET)

    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            with monkeypatch.context() as patch:
                patch.setattr(connection.Intercepted, "_request", broken)
                assert await door.ask(server.port, request(port=server.port)) == b""
            assert b"hello" in await door.ask(server.port, request(port=server.port))
    assert SECRET not in repr(door.words) and "RuntimeError" in repr(door.words)
