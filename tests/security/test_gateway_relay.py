"""What an agent says to the gateway gets it no more than is its own, and takes nothing from others.

There is no machine here: the agents write their own HTTP, as any program in a sandbox can.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.scripted import Models, Reply
from tests.support.egress import ask, policy, running
from tests.unit.gateway.conftest import KEY, anthropic, openai, started

BODY = json.dumps({"model": "claude-opus-5", "max_tokens": 9, "messages": []}).encode()


def said(host: str, body: bytes = BODY, length: int = len(BODY)) -> bytes:
    """A request that asks a gateway for a message; of its body perhaps not all."""
    head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}.corral.internal\r\nContent-Length: {length}"
    return head.encode() + b"\r\n\r\n" + body


async def test_a_header_does_not_lead_to_the_gateway_of_another_agent(
    models: Models, folder: Path
) -> None:
    gateways, allowed = [anthropic(models), openai(models)], {2: ("openai",)}
    async with (
        started(models, folder, gateways, allowed=allowed) as world,
        running(
            policy(mode="none"),
            gateways=("anthropic", "openai"),
            allowed=allowed,
            gateway=lambda agent: world.sockets[agent - 1],
        ) as engine,
    ):
        two = ask(engine, "openai.corral.internal", 80, agent=2)
        await two.say(b"GET /v1/models HTTP/1.1\r\nHost: openai.corral.internal\r\n\r\n")
        await asyncio.wait_for(models.until(lambda: len(models.seen) == 1), 10)  # the control
        await two.say(said("anthropic"))
        await two.say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(two.hear_all(), 10)
        await two.finish()
        assert b"HTTP/1.1 403 " in answer and b"this agent may not use that gateway" in answer
        assert [seen.path for seen in models.seen] == ["/v1/models"]
        assert KEY not in models.seen[0].headers.get("x-api-key", "")
        (refused,) = [each for each in world.transcript() if each["gateway"] == "anthropic"]
        assert (refused["kind"], refused["agent"], refused["status"]) == ("refused", 2, 403)
        assert (await world.messages(agent=1))[0] == 200


async def test_who_hangs_up_before_the_cost_is_told_passes_no_budget(
    models: Models, folder: Path
) -> None:
    """OpenRouter has models that no table of prices knows; their cost is in the last event."""
    upstream = f"{models.url}/s://openrouter.ai/api/v1"
    router = openai(models, name="router", upstream=upstream, budget_usd=0.002)
    body = {"model": "x-ai/grok-9", "max_tokens": 100, "stream": True}
    forever = asyncio.Event()

    async def pace(number: int) -> None:
        if number == 3:
            await forever.wait()

    models.replies.append(Reply(text="one two three four " * 30, pace=pace))
    async with started(models, folder, [router]) as world:

        def ask_it(agent: int = 1) -> Any:
            path = "/v1/chat/completions"
            return world.ask("POST", path, agent=agent, host="router", json=body)

        async with ask_it() as first:
            await first.content.readany()
            async with ask_it(agent=2) as second:
                assert second.status == 429  # what the first may cost is all that there is
            first.close()
        await models.until(lambda: models.gone == 1)
        async with ask_it() as third:
            assert third.status == 400 and b"is spent" in await third.read()
        assert len(models.seen) == 1
        (end,) = [each for each in world.transcript() if each.get("ended") == "cancelled"]
        assert end["price"] == "assumed" and end["cost_usd"] > 0.002


async def test_a_packed_body_takes_no_memory_that_is_not_counted(
    models: Models, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 KB on the wire can be 30 MB to be sent on."""
    monkeypatch.setattr("corral.gateway.bodies.MAX_HELD", 4 << 20)  # of two agents one has 2 MiB
    forever = asyncio.Event()

    async def pace(_number: int) -> None:
        await forever.wait()

    models.replies.append(Reply(pace=pace))
    async with started(models, folder, [anthropic(models)]) as world:

        def ask_it(size: int, agent: int = 1, **more: Any) -> Any:
            body = {"model": "claude-opus-5", "max_tokens": 9, "x": "y" * size, **more}
            packed = gzip.compress(json.dumps(body).encode())
            headers = {"content-encoding": "gzip"}
            return world.ask("POST", "/v1/messages", agent=agent, data=packed, headers=headers)

        async with ask_it(1500 << 10, stream=True):  # held while the upstream takes its time
            async with ask_it(1500 << 10) as second:
                assert second.status == 503
            async with ask_it(900 << 10, agent=2) as other:
                assert other.status == 200
            tracemalloc.start()
            try:
                bomb = gzip.compress(b" " * (60 << 20))
                headers = {"content-encoding": "gzip"}
                tracemalloc.reset_peak()
                before, _peak = tracemalloc.get_traced_memory()
                async with world.ask("POST", "/v1/messages", data=bomb, headers=headers) as third:
                    assert third.status == 503
                assert tracemalloc.get_traced_memory()[1] - before < 8 << 20
            finally:
                tracemalloc.stop()
        async with ask_it(1500 << 10) as last:  # what is over is free again
            assert last.status == 200


async def test_bodies_that_are_never_finished_keep_no_other_agent_out(
    models: Models, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.gateway.bodies.MAX_HELD", 400 << 10)
    big = ["x" * 90_000]
    async with started(models, folder, [anthropic(models)]) as world:
        writers = []
        for _ in range(5):
            _reader, writer = await asyncio.open_unix_connection(world.sockets[0])
            writer.write(said("anthropic", b" " * 60_000, 64_000))
            writers.append(writer)
        async with asyncio.timeout(20):
            while (await world.messages(agent=1, messages=big))[0] != 503:
                pass  # until they have come
        assert (await world.messages(agent=2, messages=big))[0] == 200
        for writer in writers:
            writer.close()


async def test_a_body_that_is_never_finished_is_not_waited_for(
    models: Models, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.gateway.bodies.MAX_HELD", 192 << 10)  # of two agents one has 96 KiB
    monkeypatch.setattr("corral.gateway.bodies.SECONDS", 0.3)
    async with started(models, folder, [anthropic(models)]) as world:
        reader, writer = await asyncio.open_unix_connection(world.sockets[0])
        writer.write(said("anthropic", b" " * 90_000, 90_001))
        answer = await asyncio.wait_for(reader.read(), 20)  # to its end: it is hung up, too
        assert (
            b" 408 " in answer.partition(b"\r\n")[0] and b"x-should-retry: true" in answer.lower()
        )
        assert (await world.messages(messages=["x" * 90_000]))[0] == 200  # what it held is free
        writer.close()


async def test_a_body_that_comes_slowly_and_steadily_is_taken(
    models: Models, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the time that a body has grows with what has come of it."""
    monkeypatch.setattr("corral.gateway.bodies.SECONDS", 1.0)
    monkeypatch.setattr("corral.gateway.bodies.BYTES_A_SECOND", 4)

    async def slowly() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 4):
            yield BODY[at : at + 4]
            await asyncio.sleep(0.1)

    async with started(models, folder, [anthropic(models)]) as world:
        began = time.monotonic()
        async with world.ask("POST", "/v1/messages", data=slowly()) as answer:
            assert answer.status == 200
        assert time.monotonic() - began > 1.0
