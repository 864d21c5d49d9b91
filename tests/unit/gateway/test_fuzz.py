"""Requests that are nearly right, and bytes that are not, at the gateway's own socket."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from corral.scripted import Reply
from tests.unit.gateway.conftest import KEY, World

ALLOWED = {
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/m",
    "/v1/responses",
}
LINES = [
    *(b"POST /v1/messages HTTP/1.1", b"GET /v1/models HTTP/1.1", b"GET /v1/models/m HTTP/1.0"),
    *(b"POST /v1/messages/count_tokens HTTP/1.1", b"POST /v1/responses HTTP/1.1"),
    *(b"POST /v1/messages?a=b&key=x HTTP/1.1", b"PUT /v1/messages HTTP/1.1"),
    *(b"CONNECT a:443 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"POST http://a.test/v1/messages HTTP/1.1"),
    *(b"POST /v1/../v1/files HTTP/1.1", b"GET /%2e%2e/etc/passwd HTTP/1.1", b"PRI * HTTP/2.0"),
]
HEADERS = [
    *(b"Host: anthropic.corral.internal", b"Host: openai.corral.internal", b"Host: other.test"),
    *(b"Content-Length: 25", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1, 2"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Connection: close, X-A"),
    *(b"Content-Encoding: gzip", b"Content-Encoding: br", b"Expect: 100-continue", b"X-A: \x00"),
    *(b"Upgrade: websocket", b"Authorization: Bearer x", b"X-Api-Key: " + b"y" * 5000, b": none"),
    *(b"Content-Type: application/json", b"Accept-Encoding: zstd", b"X-\xff: z", b" folded"),
]
BODIES = [
    *(b'{"model":"claude-opus-5"}', b'{"model":"m","stream":true}', b"[]", b"", b"{" * 50),
    *(
        b"19\r\n" + b'{"model":"claude-opus-5"}' + b"\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"\x1f\x8b",
    ),
]


def nearly_right(dice: random.Random) -> bytes:
    """A request, some of whose bytes may have changed; perhaps another one behind it."""
    said = b""
    for _ in range(dice.randrange(1, 3)):
        few = dice.random() < 0.5  # changes, so that what is tried gets far
        line = dice.choice(LINES[:5] if few else LINES)
        lines = [line, *dice.sample(HEADERS, dice.randrange(2 if few else 6))]
        if few or dice.random() < 0.7:
            lines.insert(1, HEADERS[0])
        body = dice.choice(BODIES[:2] if few else BODIES)
        if few or dice.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(body))
        said += b"\r\n".join(lines) + b"\r\n\r\n" + body
    changed = bytearray(said)
    for _ in range(dice.choice([0, 0, 0, 1, 3, 10])):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(1, len(changed) + 1)] if dice.random() < 0.2 else changed)


async def answered(world: World, said: bytes) -> bytes:
    """What comes back until the other side has had enough, or waits for more."""
    reader, writer = await asyncio.open_unix_connection(world.sockets[0])
    got = b""
    try:
        writer.write(said)
        while data := await asyncio.wait_for(reader.read(65536), 0.15):
            got += data
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return got


@pytest.mark.parametrize("seed", range(4))
async def test_no_bytes_get_the_key_or_anywhere_else_or_end_the_gateway(
    world: World, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    world.models.default = Reply(echo=True)
    dice = random.Random(seed)
    for _ in range(60):
        got = await answered(world, nearly_right(dice))
        assert KEY.encode() not in got
        assert not got or got.startswith(b"HTTP/1."), got
        assert b" 500 " not in got[:20], got
    assert {seen.path for seen in world.models.seen} <= ALLOWED
    for seen in world.models.seen:
        assert "x" not in (seen.headers.get("authorization"), seen.query)
        assert seen.body is None or isinstance(seen.body, dict)
    assert (await world.messages())[0] == 200
    assert len(world.models.seen) > 3  # the control: some were right
    for line in (world.folder / "transcript.jsonl").read_text().splitlines():
        json.loads(line)
    assert not [
        record for record in caplog.records if record.exc_info and record.levelname == "ERROR"
    ]


async def test_half_requests_cost_nothing_and_keep_nobody_out(world: World) -> None:
    head = (
        b"POST /v1/messages HTTP/1.1\r\nHost: anthropic.corral.internal\r\nContent-Length: 99\r\n"
    )
    writers = []
    for _ in range(300):
        _reader, writer = await asyncio.open_unix_connection(world.sockets[0])
        writer.write(head)
        writers.append(writer)
    assert (await world.messages())[0] == 200
    for writer in writers:
        writer.close()


async def test_more_than_so_many_at_once_are_told_to_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.gateway.relay.MAX_AT_ONCE", 2)
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def pace(_number: int) -> None:
        begun.release()
        await go_on.wait()

    world.models.replies += [Reply(pace=pace), Reply(pace=pace)]

    async def stream() -> int:
        body = {"model": "claude-opus-5", "stream": True}
        async with world.ask("POST", "/v1/messages", json=body) as answer:
            await answer.read()
            status: int = answer.status
            return status

    first = [asyncio.create_task(stream()) for _ in range(2)]
    for _ in first:
        await begun.acquire()
    status, said = await world.messages()
    assert status == 429 and "at once" in said["error"]["message"]
    assert (await world.messages(agent=2))[0] == 200  # another agent is not kept out
    go_on.set()
    assert await asyncio.gather(*first) == [200, 200]
