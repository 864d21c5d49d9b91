"""Servers that repeat what they got: no secret comes back, whatever its form."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import urllib.parse
import zlib
from pathlib import Path

import pytest

from corral.gateway.intercept.messages import Trouble
from tests.support.https import Script, TestAuthority, echo, plain, raw, serving

from .conftest import HOST, PLACEHOLDER, SECRET, intercepting, request

HEAD = b"HTTP/1.1 200 OK\r\n"


async def answered(
    tmp_path: Path, upstreams: TestAuthority, script: Script, *headers: str
) -> tuple[bytes, list[object]]:
    """What comes back for a request with the placeholder."""
    async with serving(upstreams.context(HOST), script) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            lines = headers or (f"Authorization: Bearer {PLACEHOLDER}",)
            back = await door.ask(server.port, request(*lines, port=server.port))
        assert SECRET in repr(server.requests) or "Basic" in repr(server.requests)
    assert SECRET.encode() not in back
    return back, list(door.words)


async def test_in_headers_and_body(tmp_path: Path, upstreams: TestAuthority) -> None:
    back, _ = await answered(tmp_path, upstreams, echo)
    assert back.count(PLACEHOLDER.encode()) == 2
    head, body = back.split(b"\r\n\r\n", 1)
    assert f"X-Echo: Bearer {PLACEHOLDER}".encode() in head
    assert f"Content-Length: {len(body)}".encode() in head


async def test_basic_credentials_come_back_as_they_were_given(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    given = base64.b64encode(f"me:{PLACEHOLDER}".encode()).decode()
    back, _ = await answered(tmp_path, upstreams, echo, f"Authorization: Basic {given}")
    sent = base64.b64encode(f"me:{SECRET}".encode())
    assert back.count(given.encode()) == 2 and sent not in back


@pytest.mark.parametrize("at", [1, 4, 5, 20, len(SECRET) - 1])
async def test_across_pieces(tmp_path: Path, upstreams: TestAuthority, at: int) -> None:
    """As chunks, each in a packet of its own."""
    text = f'{{"you": "{SECRET}"}}\n'.encode()
    middle = text.index(SECRET.encode()) + at
    pieces = [b"%x\r\n%s\r\n" % (len(p), p) for p in (text[:middle], text[middle:])]
    script = raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n", pause=0.02)
    back, _ = await answered(tmp_path, upstreams, script)
    assert dechunked(back) == text.replace(SECRET.encode(), PLACEHOLDER.encode())


async def test_byte_by_byte_until_the_server_closes(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    text = f"a {SECRET} b {SECRET}"

    async def drip(_request: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        for byte in text.encode():
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    back, _ = await answered(tmp_path, upstreams, drip)
    assert back.split(b"\r\n\r\n", 1)[1] == text.replace(SECRET, PLACEHOLDER).encode()


@pytest.mark.parametrize("way", ["gzip", "deflate", "bare"])
async def test_compressed_though_nobody_asked(
    tmp_path: Path, upstreams: TestAuthority, way: str
) -> None:
    text = b"x" * 70_000 + f" {SECRET} ".encode() + b"y" * 1000
    if way == "gzip":
        body = gzip.compress(text[:50_000]) + gzip.compress(text[50_000:])
    elif way == "deflate":
        body = zlib.compress(text)
    else:
        packer = zlib.compressobj(wbits=-15)
        body = packer.compress(text) + packer.flush()
    name = b"gzip" if way == "gzip" else b"deflate"
    script = plain(body, b"Content-Encoding: " + name)
    back, _ = await answered(tmp_path, upstreams, script)
    assert b"content-encoding" not in back.lower()
    assert dechunked(back) == text.replace(SECRET.encode(), PLACEHOLDER.encode())


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((b"Content-Encoding: br",), b"\x0b\x02\x80hello\x03"),
        (
            (b"Content-Encoding: gzip, gzip",),
            gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0),
        ),
        ((b"Content-Encoding: gzip",), b"\x1f\x8bnonsense"),
        ((b"Content-Encoding: gzip",), gzip.compress(b"hello" * 100, mtime=0)[:-12]),
    ],
)
async def test_what_cannot_be_searched_does_not_come_back(
    tmp_path: Path, upstreams: TestAuthority, headers: tuple[bytes, ...], body: bytes
) -> None:
    back, words = await answered(tmp_path, upstreams, plain(body, *headers))
    assert body not in back
    assert any(isinstance(word, Trouble) for word in words)


async def test_servers_are_asked_for_plain_answers(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            lines = ("Accept-Encoding: gzip, br", "TE: gzip", "Upgrade: h2c")
            await door.ask(server.port, request(*lines, port=server.port))
    got = server.requests[0]
    assert got.header("accept-encoding") == "identity"
    assert not got.header("te") and not got.header("upgrade")


@pytest.mark.parametrize(
    "form",
    [
        urllib.parse.quote(SECRET, safe=""),
        json.dumps(SECRET),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"x:" + SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"y" + SECRET.encode() + b"!").decode(),
    ],
)
async def test_other_forms(tmp_path: Path, upstreams: TestAuthority, form: str) -> None:
    back, _ = await answered(tmp_path, upstreams, plain(form.encode()))
    body = back.split(b"\r\n\r\n", 1)[1]
    assert len(body) == len(form)
    assert form.encode()[4:-4] not in back


async def test_a_broken_answer_says_nothing_of_itself(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """mitmproxy's own error pages quote the server."""
    for script in (
        raw(f"{SECRET} 200 nonsense\r\n\r\n".encode()),
        raw(HEAD + f"{SECRET}: \x00\r\n".encode() + b"Bad Name: 1\r\n\r\n"),
        raw(HEAD + f"Content-Length: {SECRET}\r\n\r\n".encode()),
        raw(HEAD + f"Transfer-Encoding: {SECRET}\r\n\r\n".encode()),
    ):

        async def and_close(got: object, writer: asyncio.StreamWriter, script=script) -> None:  # type: ignore[no-untyped-def]
            await script(got, writer)
            writer.close()

        back, _ = await answered(tmp_path, upstreams, and_close)
        assert back.startswith(b"HTTP/1.1 502") and b"corral:" in back


def dechunked(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    head, rest = answer.split(b"\r\n\r\n", 1)
    assert b"transfer-encoding: chunked" in head.lower()
    body = b""
    while True:
        size, rest = rest.split(b"\r\n", 1)
        if int(size, 16) == 0:
            return body
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
