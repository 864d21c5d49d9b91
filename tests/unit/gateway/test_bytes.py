"""Bytes of a guest that are no text, where HTTP lets them through."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.gateway.conftest import World

BODY = b'{"model":"claude-opus-5","max_tokens":5,"messages":[]}'


@pytest.mark.parametrize(
    ("start", "header", "body", "status"),
    [
        (b"POST /v1/\xff\xfe HTTP/1.1", b"A: b", BODY, 400),
        (b"POST /v1/messages HTTP/1.1", b"User-Agent: \xff\xfe", BODY, 200),
        (b"POST /v1/messages HTTP/1.1", b"Anthropic-Beta: \xff", BODY, 200),
        (b"POST /v1/messages?\xff HTTP/1.1", b"A: b", BODY, 400),
        (b"POST /v1/messages HTTP/1.1", b"A: b", BODY.replace(b"[]", b'["\\ud800"]'), 400),
        (b"POST /v1/messages HTTP/1.1", b"A: b", BODY.replace(b"[]", b'["\xff"]'), 400),
    ],
)
async def test_they_are_answered(
    world: World, start: bytes, header: bytes, body: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.sockets[0]))
    length = str(len(body)).encode()
    lines = (start, b"Host: anthropic.corral.internal", header, b"Content-Length: " + length)
    writer.write(b"\r\n".join((*lines, b"Connection: close", b"", body)))
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert int(answer.split()[1]) == status
