"""The egress engine of one sandbox: it decides about each connection that an agent asks for, checks
it, dials, moves the bytes and says what happened.

It lives in the process that owns the channel and holds no secret. What a guest can make it hold is
bounded: connections of each agent, bytes before a decision, time; memory in both directions by the
stream's credit and the socket's buffer.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from corral.events import Report, silent
from corral.journal import Journal
from corral.policy import Network, Secret

from .connection import Asked, Connection
from .doors import Doors
from .ledger import Ledger
from .limits import Usage
from .resolver import Resolve, resolvers
from .stream import Stream

__all__ = ["Engine", "Stream"]

MAX_NAME = 1024  # characters of a name that a guest may say
MAX_CONNECTIONS = 4096  # of all agents together, and half of the descriptors that we may open


class Engine:
    """Use it as an async context manager; leaving it ends every connection.

    agents: the numbers of the sandbox's agents, others are refused. networks: of agents with a
    policy of their own. gateways: the names of the gateways; allowed: of agents that may use only
    some of them, which; `gateway` gives the Unix socket of the gateway process that means an agent.
    secrets: connections to their hosts go to the interceptor's Unix socket `intercept`. report and
    journal get an `events.Connection` of each decision. resolve: in place of the host's resolver.
    """

    def __init__(
        self,
        network: Network,
        *,
        agents: Collection[int],
        networks: Mapping[int, Network] = MappingProxyType({}),
        gateways: Collection[str] = (),
        allowed: Mapping[int, Collection[str]] = MappingProxyType({}),
        gateway: Callable[[int], Path] | None = None,
        secrets: Sequence[Secret] = (),
        intercept: Path | None = None,
        report: Report = silent,
        journal: Journal | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._networks = {agent: networks.get(agent, network) for agent in agents}
        self._agents = {agent: Usage(own.limits) for agent, own in self._networks.items()}
        self._doors = Doors(gateways, gateway, secrets, intercept, allowed)
        self._ledger = Ledger(report, journal)
        each = zip(self._agents, resolvers(len(self._agents)), strict=True)
        self._resolve: dict[int, Resolve] = {agent: resolve or own for agent, own in each}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        # This process has other descriptors to open, and may not run out of them.
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(MAX_CONNECTIONS, soft // 2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every connection, and say what there is still to say. It may be called twice."""
        self._closed = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tuple(self._tasks))
        self._ledger.close()

    @property
    def open_connections(self) -> int:
        """How many connections are open or being decided."""
        return len(self._tasks)

    def connect(self, params: dict[str, object], stream: Stream) -> None:
        """An agent asks for a connection: {"agent", "name", "port"}, and more that is not for us.

        To be called in the event loop, from the handler of the guest's notification; returns at
        once. Raises ValueError when the guest says something that makes no sense.
        """
        asked = self._asked(params)
        usage = self._agents[asked.agent]
        connection = Connection(
            asked,
            stream,
            self._networks[asked.agent],
            self._doors,
            usage,
            self._ledger,
            self._resolve[asked.agent],
        )
        if self._closed:
            stream.reset("the sandbox ends")
        elif len(self._tasks) >= self._most or not usage.enter():
            connection.refuse("too many connections at once")
        else:
            task = asyncio.create_task(connection.run(), name=f"connection to {asked.port}")
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._ended(task, usage))

    def _ended(self, task: asyncio.Task[None], usage: Usage) -> None:
        self._tasks.discard(task)
        usage.leave()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours: that connection is over, and the event loop's owner is told.
            task.get_loop().call_exception_handler(
                {"message": "a connection of a sandbox failed", "exception": error, "task": task}
            )

    def _asked(self, params: dict[str, object]) -> Asked:
        agent, name, port = params.get("agent"), params.get("name"), params.get("port")
        if type(agent) is not int or agent not in self._agents:
            raise ValueError("a connection of an agent that there is not.")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise ValueError("a connection to no name.")
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError("a connection to no port.")
        return Asked(agent, name, port)
