"""What goes out of a sandbox: its engine, fed by the guest's `connect`, for as long as it runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from pathlib import Path

from ..channel import Channel, Stream
from ..events import Notice, Report
from ..journal import Journal
from ..paths import log_dir
from ..plan import Plan

JOURNAL = "network.jsonl"  # in the sandbox's log folder
# Bytes before it becomes the older one: an agent that makes the most connections it may, to push
# out what it did before, needs half an hour, and is seen.
LOG_SIZE = 32 << 20


class Traffic:
    """Bytes that agents have sent and received over the network, from their point of view."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0


class _Counted:
    """A stream of the guest's whose bytes are counted."""

    __slots__ = ("_stream", "_traffic")

    def __init__(self, stream: Stream, traffic: Traffic) -> None:
        self._stream = stream
        self._traffic = traffic

    async def read(self, limit: int = 1 << 16) -> bytes:
        """See `Stream.read`."""
        data = await self._stream.read(limit)
        self._traffic.sent += len(data)
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `Stream.write`."""
        await self._stream.write(data)
        self._traffic.received += len(data)

    async def end(self) -> None:
        """See `Stream.end`."""
        await self._stream.end()

    def reset(self, reason: str = "") -> None:
        """See `Stream.reset`."""
        self._stream.reset(reason)


def preload(plan: Plan) -> None:
    """Import what `egress` will need: for a thread, while QEMU starts."""
    if _served(plan):
        import_module("corral.network")


def _served(plan: Plan) -> list[int]:
    return [agent.number for agent in plan.agents if agent.setup["network"] is not None]


@contextlib.asynccontextmanager
async def egress(
    plan: Plan,
    channel: Channel,
    report: Report,
    *,
    intercept: Path | None = None,
    gateway: Callable[[int], Path] | None = None,
) -> AsyncIterator[Traffic]:
    """Serve the guest's connections until the end; they are decided by the plan's policy.

    intercept: the interceptor's socket, for hosts of secrets. gateway: where the gateway listens
    for an agent. Where the plan has no network, a guest that asks for a connection breaks the
    protocol.
    """
    traffic = Traffic()
    agents = _served(plan)
    if not agents:
        yield traffic
        return
    from ..network import Engine

    with contextlib.closing(Journal(log_dir(plan.name) / JOURNAL, limit=LOG_SIZE)) as journal:
        engine = Engine(
            plan.network,
            agents=agents,
            networks={a.number: a.network for a in plan.agents if a.network is not None},
            allowed={a.number: a.gateways for a in plan.agents if a.gateways is not None},
            gateways=[each.name for each in plan.gateways],
            gateway=gateway,
            secrets=plan.secrets,
            intercept=intercept,
            report=report,
            journal=journal,
        )

        def connect(params: dict[str, object]) -> None:
            stream = channel.accept_stream(params.get("stream"))
            engine.connect(params, _Counted(stream, traffic))

        try:
            async with engine:
                channel.handle("connect", connect)
                yield traffic
        finally:
            if journal.failure is not None:
                text = f"`corral net log` does not have every connection: {journal.failure}."
                report(Notice(level="warning", message=text))
