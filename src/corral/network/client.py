"""The guest's end of a connection: its first bytes held until they are known to be right."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from corral.policy import Host
from corral.policy.sniff import HttpRequest, Kind, Refused, TlsStart, looks_like

from .limits import Usage
from .outcome import Failed
from .stream import Stream

PATIENCE = 20.0  # seconds for a ClientHello or the head of a request
TLS_PORT, HTTP_PORT = 443, 80
MAX_HELD = 1 << 16  # bytes that a client may send ahead of a server's answer, and one read more
DRAIN_TIME, DRAIN_SIZE = 2.0, 1 << 20  # what a refused client still says is read and dropped


class Client:
    """Reads from the guest what may go to the server; unless `inspect` was called, everything.

    sent, received: bytes from and to the guest.
    """

    def __init__(self, stream: Stream, usage: Usage) -> None:
        self._stream = stream
        self._usage = usage
        self._host: Host | None = None
        self._port = 0
        self._kind: Kind | None = None
        self._start: TlsStart | HttpRequest | None = None
        self._ready = b""  # checked, and not yet read by `next`
        self._ended = False
        self._answered = asyncio.Event()
        self._held = 0  # bytes that wait for the server's answer
        self.sent = 0
        self.received = 0

    @property
    def speaks_http(self) -> bool:
        """Whether the first bytes are a request of plain HTTP."""
        return self._kind == "http"

    async def inspect(self, host: Host, port: int, *, tls: bool) -> None:
        """Check the first bytes where they have to be TLS or HTTP, before there is a connection.

        On other ports that is done by `next`, as the server may have to speak first. Raises Refused
        and Failed.
        """
        self._host, self._port = host, port
        if tls or port == TLS_PORT:
            await self._in_time("tls")
        elif port == HTTP_PORT:
            await self._in_time("http")

    async def _in_time(self, only: Kind) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._first(only)
        except TimeoutError as error:
            raise Failed("the sandbox sent no request in time") from error

    async def _first(self, only: Kind | None) -> None:
        held = await self._until_known()
        if only is not None and self._kind != only:
            if self._ended and not held:
                raise Failed("the sandbox sent no request")
            raise Refused("not TLS" if only == "tls" else "not HTTP")
        assert self._host is not None, "inspect comes first"
        if self._kind == "tls":
            self._start = TlsStart(self._host)
        elif self._kind == "http":
            self._start = HttpRequest(self._host, self._port)
        else:
            self._ready = held
            return
        self._ready = self._start.feed(held)
        while not self._start.started:
            data = await self._read()
            if not data:
                raise Failed("the sandbox ended its request too soon")
            self._ready += self._start.feed(data)

    async def _until_known(self) -> bytes:
        held = b""
        while self._kind is None:
            data = await self._read()
            held += data
            self._kind = looks_like(held) if data else "other"
        return held

    async def next(self) -> bytes:
        """The next bytes that go to the server; b"" at the end. Raises Refused, Failed."""
        if self._kind is None and self._host is not None:
            await self._first(None)
        while not self._ready and not self._ended:
            if self._start is None:
                self._ready = await self._read()
            elif self._start.waiting:
                self._ready = self._start.feed(await self._more_or_answer())
            else:
                self._ready = self._start.feed(await self._read())
        if not self._ready and self._start is not None and self._start.holding:
            await self._answered.wait()  # the end is behind what is held
            self._ready = self._start.feed(b"")
        data, self._ready = self._ready, b""
        return data

    async def _more_or_answer(self) -> bytes:
        """While the server has to answer first: what the guest says meanwhile is held, not much of
        it, and its end is heard.
        """
        answered = asyncio.ensure_future(self._answered.wait())
        tasks: set[asyncio.Task[bytes]] = set()
        if self._held < MAX_HELD:
            tasks.add(asyncio.ensure_future(self._read()))
        try:
            await asyncio.wait({answered, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answered, *tasks):
                task.cancel()  # a read that is cancelled loses nothing
            await asyncio.wait({answered, *tasks})
        data = b"".join(task.result() for task in tasks if not task.cancelled())
        self._held += len(data)
        return data

    def server_said(self, data: bytes) -> None:
        """Hear what the server sends: it may be what the client has to wait for."""
        if self._start is not None and self._start.waiting:
            self._start.server(data)
            if not self._start.waiting:
                self._answered.set()

    async def send(self, data: bytes) -> None:
        """Send to the guest."""
        self.received += len(data)
        self._usage.count(len(data))
        await self._stream.write(data)

    async def wait_for_request(self) -> None:
        """Wait for the first bytes, which nobody is going to get. Raises TimeoutError, Failed."""
        if self._kind is None:
            async with asyncio.timeout(PATIENCE):
                await self._until_known()

    async def answer(self, text: bytes) -> None:
        """Say this in place of a server, and the end; let the client say what it has begun."""
        await self.send(text)
        await self._stream.end()
        await self.drain()

    async def drain(self) -> None:
        """Read and drop what the client still says, for a moment: it reads its answer then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIME):
                most = self.sent + DRAIN_SIZE
                while not self._ended and self.sent < most:
                    await self._read()

    async def _read(self) -> bytes:
        data = await self._stream.read()
        self._ended = not data
        self.sent += len(data)
        self._usage.count(len(data))
        return data
