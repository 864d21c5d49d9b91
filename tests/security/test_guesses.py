"""A guest guesses a key, and an upstream repeats the guesses. No machine is needed for that."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from corral.policy import OPENAI, Gateway, Key
from corral.scripted import Models
from tests.unit.gateway.conftest import KEY, started

ASK = b"GET /v1/responses/r HTTP/1.1\r\nHost: openai.corral.internal\r\nConnection: close\r\n\r\n"
AROUND = (b'{"said":"', b'"}')


@asynccontextmanager
async def repeating(guess: list[bytes]) -> AsyncIterator[str]:
    """A server that says the guess, and after a moment the rest; its address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        said = web.StreamResponse(headers={"content-type": "application/json"})
        await said.prepare(request)
        await said.write(AROUND[0] + guess[0])
        await asyncio.sleep(0.1)
        await said.write(AROUND[1])
        return said

    app = web.Application()
    app.router.add_get("/v1/responses/r", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def chunks(path: Path) -> list[bytes]:
    """What a guest gets, as it gets it (RFC 9112, 7.1)."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(ASK)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"chunked" in head
    found = []
    while size := int(await reader.readline(), 16):
        found.append(await reader.readexactly(size))
        await reader.readline()
    writer.close()
    return found


@pytest.mark.parametrize("known", [1, 16, len(KEY) - 1])
async def test_pieces_do_not_tell_how_much_of_a_guess_is_right(known: int) -> None:
    guess = [b""]
    right = KEY[:known]
    wrong = right[:-1] + ("X" if right[-1] != "X" else "Y")
    async with repeating(guess) as upstream:
        key = Key(kind="env", value=("NOT_USED_HERE",))
        gateway = Gateway(name="openai", dialect=OPENAI, upstream=upstream, key=key)
        with tempfile.TemporaryDirectory(prefix="gw-") as folder:
            async with Models() as models, started(models, Path(folder), [gateway]) as world:
                got = {}
                for text in (right, wrong):
                    guess[0] = text.encode()
                    got[text] = await asyncio.wait_for(chunks(world.sockets[0]), 20)
                    assert b"".join(got[text]) == guess[0].join(AROUND)
    assert list(map(len, got[right])) == list(map(len, got[wrong]))
