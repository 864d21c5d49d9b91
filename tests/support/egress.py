"""The egress engine in a test: policies, servers on loopback, connections of a guest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from corral import events
from corral.journal import Journal
from corral.network import Engine
from corral.network.outcome import Failed
from corral.network.resolver import Resolve
from corral.policy import Address, Limits, Mode, Network, Secret
from corral.policy.names import IPAddress
from corral.policy.rules import parse_rules
from tests.support.guests import Guest

Seen = list[events.Event]


def policy(
    *allow: str,
    mode: Mode = "allow",
    to: dict[str, int] | None = None,
    deny: Sequence[str] = (),
    limits: Limits | None = None,
) -> Network:
    """A policy; to: names that lead to a port of loopback."""
    return Network(
        mode=mode,
        allow=tuple(rule for text in allow for rule in parse_rules(text)),
        deny=tuple(rule for text in deny for rule in parse_rules(text)),
        addresses=tuple(
            Address(name=name, port=None, address="127.0.0.1", to_port=port)
            for name, port in (to or {}).items()
        ),
        limits=limits or Limits(),
    )


async def nowhere(name: str) -> tuple[IPAddress, ...]:
    """A resolver that knows no name."""
    raise Failed("no such name")


@asynccontextmanager
async def running(
    network: Network,
    seen: Seen | None = None,
    *,
    resolve: Resolve | None = nowhere,
    journal: Journal | None = None,
    gateways: Sequence[str] = (),
    gateway: Callable[[int], Path] | None = None,
    secrets: Sequence[Secret] = (),
    intercept: Path | None = None,
    networks: Mapping[int, Network] | None = None,
    allowed: Mapping[int, Sequence[str]] | None = None,
) -> AsyncIterator[Engine]:
    """An engine for agents 1 and 2; it ends with nothing open. resolve: None for the host's."""
    report = seen.append if seen is not None else events.silent
    engine = Engine(
        network,
        agents={1, 2},
        networks=networks or {},
        allowed=allowed or {},
        gateways=gateways,
        gateway=gateway,
        secrets=secrets,
        intercept=intercept,
        report=report,
        journal=journal,
        resolve=resolve,
    )
    async with engine:
        yield engine
    assert engine.open_connections == 0


def ask(engine: Engine, name: str, port: int, *, agent: int = 1, window: int = 1 << 18) -> Guest:
    """An agent asks for a connection; the guest's end of it."""
    guest = Guest(window)
    engine.connect({"stream": 1, "agent": agent, "name": name, "port": port}, guest)
    return guest


def connections(seen: Seen) -> list[events.Connection]:
    """The events of connections among what was seen."""
    return [each for each in seen if isinstance(each, events.Connection)]


class Server:
    """A server on loopback: `got` has what each connection said until its end."""

    def __init__(self) -> None:
        self.port = 0
        self.got: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()  # a connection has come to its end


@asynccontextmanager
async def server(
    answer: bytes = b"", *, first: bytes = b"", wait: bytes = b"", unix: Path | None = None
) -> AsyncIterator[Server]:
    """It says `first`, reads until `wait` was said or the end, answers and closes."""
    state = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        place = len(state.got)
        state.got.append(b"")
        try:
            writer.write(first)
            while piece := await reader.read(65536):
                state.got[place] += piece
                if wait and wait in state.got[place]:
                    break
            writer.write(answer)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            state.ended.set()

    if unix is not None:
        listening = await asyncio.start_unix_server(serve, unix)
    else:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        state.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield state
