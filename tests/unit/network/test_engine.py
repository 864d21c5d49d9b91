"""The engine with real sockets on loopback; the guest's end is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from corral import events
from corral.network import Engine
from corral.network.outcome import Failed
from corral.policy import Address, Limits, Network
from corral.policy.names import IPAddress
from corral.policy.rules import parse_rules

from .stream import Guest

Seen = list[events.Connection]


def policy(
    *allow: str, to: dict[str, int] | None = None, deny: str = "", limits: Limits | None = None
) -> Network:
    """A policy; to: names that lead to a port of loopback."""
    return Network(
        mode="allow",
        allow=tuple(rule for text in allow for rule in parse_rules(text)),
        deny=parse_rules(deny) if deny else (),
        addresses=tuple(
            Address(name=name, port=None, address="127.0.0.1", to_port=port)
            for name, port in (to or {}).items()
        ),
        limits=limits or Limits(),
    )


async def nowhere(name: str) -> tuple[IPAddress, ...]:
    raise Failed("no such name")


@asynccontextmanager
async def running(
    network: Network, seen: Seen | None = None, **options: object
) -> AsyncIterator[Engine]:
    def report(event: events.Event) -> None:
        if seen is not None and isinstance(event, events.Connection):
            seen.append(event)

    options.setdefault("resolve", nowhere)
    async with Engine(network, agents={1}, report=report, **options) as engine:  # type: ignore[arg-type]  # passed on
        yield engine


def ask(engine: Engine, name: str, port: int) -> Guest:
    guest = Guest()
    engine.connect({"stream": 1, "agent": 1, "name": name, "port": port}, guest)
    return guest


@asynccontextmanager
async def server(answer: bytes, *, wait: bytes = b"") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback that reads until `wait` came or the end, answers and closes."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while (piece := await reader.read(65536)) or False:
            data += piece
            if wait and wait in data:
                break
        got.append(data)
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], got


async def test_bytes_go_both_ways_until_both_have_ended() -> None:
    seen: Seen = []
    async with server(b"answer") as (port, got):
        network = policy("echo.test:7000", to={"echo.test": port})
        async with running(network, seen) as engine:
            guest = ask(engine, "Echo.Test.", 7000)
            await guest.say(b"\x01question")
            await guest.finish()
            assert await guest.hear_all() == b"answer"
    assert got == [b"\x01question"]
    assert [(each.verdict, each.name, each.sent, each.received) for each in seen] == [
        ("allowed", "echo.test", 0, 0),
        ("allowed", "echo.test", 9, 6),
    ]
    assert seen[0].address == "127.0.0.1" and seen[1].seconds is not None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:192.168.1.1", "fd00::1"]
)
async def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(address: str) -> None:
    async def rebinding(name: str) -> tuple[IPAddress, ...]:
        return (ip_address("192.0.2.1"), ip_address(address))

    seen: Seen = []
    async with running(policy("evil.test:7000"), seen, resolve=rebinding) as engine:
        guest = ask(engine, "evil.test", 7000)
        assert (await guest.refused()).endswith("address")
    assert [each.verdict for each in seen] == ["denied"]


async def test_a_name_that_is_not_allowed_is_not_looked_up() -> None:
    asked: list[str] = []

    async def resolve(name: str) -> tuple[IPAddress, ...]:
        asked.append(name)
        return ()

    async with running(policy("a.test"), resolve=resolve) as engine:
        guest = ask(engine, "secret-data.evil.test", 443)
        assert await guest.refused() == "not on the list"
    assert asked == []
