"""What a guest, or a server, can drive has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import pytest

from corral.gateway.intercept import connection, service
from corral.gateway.intercept.messages import MAX_PREFACE, Misplaced, Trouble
from tests.support.https import TestAuthority, plain, raw, serving

from .conftest import HOST, PLACEHOLDER, intercepting, request


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"nonsense\n",
        b'{"agent":1,"name":"api.example.test","port":0,"addresses":["127.0.0.1"]}\n',
        b'{"agent":1,"name":"api.example.test","port":1e3,"addresses":["127.0.0.1"]}\n',
        b'{"agent":1,"name":"","port":1,"addresses":["127.0.0.1"]}\n',
        b'{"agent":1,"name":"api.example.test","port":1,"addresses":["127.0.0.1"],"x":1}\n',
        b'{"agent":1,"name":"api.example.test","port":1}\n',
        b"[" * MAX_PREFACE + b"\n",
        b"x" * (1 << 20),
    ],
)
async def test_a_broken_preface_ends_the_connection(
    tmp_path: Path, upstreams: TestAuthority, line: bytes
) -> None:
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            reader, writer = await asyncio.open_unix_connection(str(door.path))
            try:
                writer.write(line)
                assert await asyncio.wait_for(reader.read(), 10) == b""
            except ConnectionError:
                pass
            writer.close()
            assert b"hello" in await door.ask(server.port, request(port=server.port))


async def test_headers_have_an_end(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                sent = 0
                try:
                    while sent < 20 << 20:
                        writer.write(b"GET / HTTP/1.1\r\n" if not sent else b"X: " + b"y" * 65536)
                        sent += 65536
                        await asyncio.wait_for(writer.drain(), 10)
                        await asyncio.sleep(0)
                    back = await asyncio.wait_for(reader.read(), 10)
                except ConnectionError:
                    back = b""
    assert back == b"" and server.requests == []
    assert Trouble(agent=1, host=HOST, reason="headers of more than 128 KiB") in door.words


async def test_a_servers_headers_have_an_end(tmp_path: Path, upstreams: TestAuthority) -> None:
    endless = raw(b"HTTP/1.1 200 OK\r\n", *(b"X: " + b"y" * 60_000 + b"\r\n" for _ in range(40)))
    async with serving(upstreams.context(HOST), endless) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            back = await door.ask(server.port, request(port=server.port))
    assert back.startswith(b"HTTP/1.1 502") and len(back) < 2000


async def test_large_headers_below_that_pass(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"hello", b"X: " + b"y" * 60_000)) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            line = "X: " + "y" * 60_000
            back = await door.ask(server.port, request(line, port=server.port))
    assert back.endswith(b"hello") and len(back) > 60_000


@pytest.mark.parametrize("stage", ["preface", "tls", "head", "second head"])
async def test_who_is_slow_is_not_waited_for(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Slow loris: a byte now and then does not extend the time."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.5)
    monkeypatch.setattr(service, "HEAD_TIMEOUT", 0.5)
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:

            async def drip(writer: asyncio.StreamWriter) -> None:
                while True:
                    writer.write(b"\x16" if stage == "tls" else b"X")
                    await asyncio.sleep(0.05)

            if stage == "preface":
                reader, writer = await asyncio.open_unix_connection(str(door.path))
                await ends(reader, drip(writer))
                writer.close()
            elif stage == "tls":
                async with door.raw(server.port) as (reader, writer):
                    writer.write(b"\x16\x03\x01\x40\x00")
                    await ends(reader, drip(writer))
            else:
                async with door.tls(server.port) as (reader, writer):
                    if stage == "second head":
                        writer.write(request(port=server.port))
                        await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                    writer.write(b"GET / HTTP/1.1\r\nX: ")
                    await ends(reader, drip(writer))


async def ends(reader: asyncio.StreamReader, meanwhile: Coroutine[object, object, None]) -> None:
    """The connection is closed while something else is done."""
    task = asyncio.create_task(meanwhile)
    try:
        async with asyncio.timeout(10):
            while await reader.read(4096):
                pass
    except ConnectionError:
        pass
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_a_quiet_connection_may_stay(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: between requests, and while an answer takes long, nobody is slow."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.3)
    async with serving(upstreams.context(HOST), raw(b"HTTP/1.1 ", pause=0.6)) as server:

        async def late(_request: object, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.6)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        async with serving(upstreams.context(HOST), late) as slow:
            async with intercepting(tmp_path, upstreams, server.port, slow.port) as door:
                async with door.tls(slow.port) as (reader, writer):
                    for _ in range(2):
                        writer.write(request(port=slow.port))
                        await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                        await asyncio.sleep(0.5)


async def test_many_connections(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty at once are served; beyond the limit the next is closed, and room comes back."""
    monkeypatch.setattr(service, "MOST_CONNECTIONS", 60)
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            asked = request(f"Authorization: Bearer {PLACEHOLDER}", port=server.port)

            async def one() -> bytes:
                return await door.ask(server.port, asked)

            answers = await asyncio.gather(*(one() for _ in range(50)))
            assert all(answer.endswith(b"hello") for answer in answers)
            idle = [await asyncio.open_unix_connection(str(door.path)) for _ in range(61)]
            assert await asyncio.wait_for(idle[-1][0].read(), 10) == b""
            for _reader, writer in idle:
                writer.close()
            assert (await one()).endswith(b"hello")


async def test_words_have_an_end(
    tmp_path: Path, upstreams: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that invents names of headers is told of once."""
    monkeypatch.setattr(service, "MOST_TOLD", 2)
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                for number in range(20):
                    line = f"X-{number}: {PLACEHOLDER}"
                    writer.write(request(line, path=f"/{PLACEHOLDER}", port=server.port))
                    await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                writer.write(request(body=PLACEHOLDER.encode(), port=server.port))
                await asyncio.wait_for(reader.readuntil(b"hello"), 10)
    said = [word.where for word in door.words if isinstance(word, Misplaced)]
    assert said == ["header x-0", "URL"]
