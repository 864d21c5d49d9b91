"""A relay in this process, listening for two agents, before scripted model servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from corral.gateway.__main__ import serving, session
from corral.gateway.config import TRANSCRIPT, Config
from corral.gateway.found import Found
from corral.gateway.held import Keys
from corral.gateway.kept import Kept
from corral.gateway.prices import table
from corral.gateway.relay import Relay
from corral.policy import ANTHROPIC, OPENAI, Gateway, Key
from corral.scripted import Models

KEY = "sk-ant-api03-THE+REAL/KEY=0123456789"
ENV = Key(kind="env", value=("NOT_USED_HERE",))


class World:
    """What a test has: the gateways, a client of an agent, what was told and written."""

    def __init__(self, models: Models, folder: Path) -> None:
        self.models = models
        self.folder = folder
        self.sockets = [folder / "1", folder / "2"]
        self.told: list[str] = []
        self.asked_again: list[dict[str, str]] = []
        self.asked = asyncio.Event()
        self.keys: Keys
        self.kept: Kept
        self.clients: dict[int, aiohttp.ClientSession] = {}

    def again(self, rejected: dict[str, str]) -> None:
        self.asked_again.append(rejected)
        self.asked.set()

    def ask(
        self, method: str, path: str, *, agent: int = 1, host: str = "anthropic", **options: Any
    ) -> Any:
        """A request of an agent, as a context manager."""
        headers = {"Host": f"{host}.corral.internal", **options.pop("headers", {})}
        return self.clients[agent].request(
            method, f"http://gateway{path}", headers=headers, **options
        )

    async def messages(
        self, *, agent: int = 1, host: str = "anthropic", headers: Any = None, **said: Any
    ) -> tuple[int, Any]:
        """Status and body of a message's answer."""
        body = {"model": "claude-opus-5", "max_tokens": 10, "messages": [], **said}
        async with self.ask(
            "POST", "/v1/messages", agent=agent, host=host, json=body, headers=headers or {}
        ) as answer:
            return answer.status, await answer.json()

    def transcript(self) -> list[dict[str, Any]]:
        """All that is written."""
        return [json.loads(line) for line in (self.folder / TRANSCRIPT).read_text().splitlines()]


def anthropic(server: Models, /, **more: Any) -> Gateway:
    given = {"name": "anthropic", "dialect": ANTHROPIC, "upstream": server.url, "key": ENV, **more}
    return Gateway(**given)


def openai(server: Models, /, **more: Any) -> Gateway:
    given = {"name": "openai", "dialect": OPENAI, "upstream": server.url, "key": ENV, **more}
    return Gateway(**given)


@asynccontextmanager
async def started(
    models: Models,
    folder: Path,
    gateways: list[Gateway],
    *,
    kept: bool = True,
    key: bool = True,
    allowed: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
) -> AsyncIterator[World]:
    """The relay, serving two agents."""
    world = World(models, folder)
    config = Config(
        gateways=tuple(gateways),
        agents=(1, 2),
        life="life",
        kept=kept,
        folder=str(folder),
        allowed=dict(allowed),
    )
    world.kept = Kept(folder, world.told.append, keep=kept)
    names = [gateway.name for gateway in gateways if gateway.key is not None]
    world.keys = Keys(names, world.again, world.told.append)
    if key:
        for name in names:
            world.keys.take(Found(name=name, key=KEY))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(session())
        relay = Relay(config, world.keys, world.kept, client, table())
        sync = asyncio.create_task(world.kept.sync())
        stack.callback(sync.cancel)
        for agent, path in zip((1, 2), world.sockets, strict=True):
            runner = await serving(relay, agent)
            stack.push_async_callback(runner.cleanup)
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, str(path)).start()
            connector = aiohttp.UnixConnector(str(path), limit=0)
            world.clients[agent] = await stack.enter_async_context(
                aiohttp.ClientSession(connector=connector, auto_decompress=True)
            )
        try:
            yield world
        finally:
            world.kept.close()


@pytest.fixture
async def world(models: Models, folder: Path) -> AsyncIterator[World]:
    async with started(models, folder, [anthropic(models), openai(models)]) as found:
        yield found
