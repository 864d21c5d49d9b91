"""What an agent says to the gateway gets it no more than is its own, and takes nothing from others.

There is no machine here: the agents write their own HTTP, as any program in a sandbox can.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.scripted import Models, Reply
from tests.support.egress import ask, policy, running
from tests.unit.gateway.conftest import KEY, anthropic, openai, started

BODY = json.dumps({"model": "claude-opus-5", "max_tokens": 9, "messages": []}).encode()


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    async with Models() as found:
        yield found


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw-") as found:  # short: a socket's path has 107 bytes
        yield Path(found)


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
