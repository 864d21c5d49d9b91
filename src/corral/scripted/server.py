"""The servers, on one port of the loopback. HTTP by h11: what imports aiohttp may hold keys."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .client import Client
from .dialects import DIALECTS, Dialect
from .model import Reply, Seen

UNTIL_SECONDS = 20.0
_JSON = {"content-type": "application/json"}
_STREAM = {"content-type": "text/event-stream"}


class Models:
    """Model servers, while the context lasts.

    url: their address, without `/v1`. seen: what they were asked, in order. gone: how many clients
    went before the end of their answer. What a request is answered with is the first of:

    - replies: each is said once, in order, to whatever is asked;
    - script: to an agent that offers tools, by how many results of tools it sent back: so a
      conversation that is repeated, or another one, finds its place;
    - default.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        script: Sequence[Reply] = (),
        report: Callable[[Seen], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.replies: deque[Reply] = deque()
        self.script = tuple(script)
        self.default = Reply()
        self.seen: list[Seen] = []
        self.gone = 0
        self.changed = asyncio.Event()
        self.url = ""
        self._report = report
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Models:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        (listening,) = self._server.sockets
        self._port = listening.getsockname()[1]
        # A certificate has a name in it.
        self.url = f"{'https://localhost' if self._tls else 'http://127.0.0.1'}:{self._port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        clients = tuple(self._clients)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def until(self, done: Callable[[], object], seconds: float = UNTIL_SECONDS) -> None:
        """Until something has come that makes this true. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        client = Client(reader, writer)
        try:
            # A client that speaks no HTTP, or goes, is done with.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while (seen := await client.request()) is not None:
                    reply = self._reply(seen)
                    if not await client.answered(self._answer(client, seen, reply)):
                        self.gone += 1
                        self.changed.set()
        finally:
            self._clients.discard(task)
            await client.close()

    def _reply(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if self._report is not None:
            self._report(seen)
        self.changed.set()
        if self.replies:
            return self.replies.popleft()
        if self.script and seen.offers_tools:
            return self.script[min(len(seen.results), len(self.script) - 1)]
        return self.default

    async def _answer(self, client: Client, seen: Seen, reply: Reply) -> None:
        if reply.redirect:
            await client.whole(307, {"location": reply.redirect}, b"")
            return
        if reply.echo:
            said = json.dumps({"headers": seen.headers, "body": seen.body})
            echoed = {**reply.headers, "x-echo": seen.headers.get("x-api-key", "")}
            reply = replace(reply, text=said, headers=echoed)
        for path, dialect in DIALECTS.items():
            if seen.path.endswith(path):
                await self._say(client, seen, reply, dialect)
                return
        status, other = _other(seen.path)
        await client.whole(status, {**_JSON, **reply.headers}, json.dumps(other).encode())

    async def _say(self, client: Client, seen: Seen, reply: Reply, dialect: Dialect) -> None:
        headers = {"request-id": "req_scripted", **reply.headers}
        if reply.gzip:
            headers["content-encoding"] = "gzip"
        if reply.status >= 400:
            error = json.dumps(dialect.error(reply.error or "scripted")).encode()
            headers.pop("content-encoding", None)
            await client.whole(reply.status, {**_JSON, **headers}, error)
        elif not seen.asked.get("stream"):
            data = json.dumps(dialect.whole(seen.asked, reply)).encode()
            data = gzip.compress(data) if reply.gzip else data
            await client.whole(reply.status, {**_JSON, **headers}, data)
        else:
            await client.begin(reply.status, {**_STREAM, **headers})
            await _stream(client, dialect.events(seen.asked, reply), reply)


async def _stream(client: Client, events: list[bytes], reply: Reply) -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for number, event in enumerate(events):
        if reply.breaks == number:
            client.abort()
            return
        if reply.pace is not None:
            await reply.pace(number)
        if reply.gzip:
            event = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
        await client.more(event)
    if reply.gzip:
        await client.more(packer.flush())
    await client.end()


def _other(path: str) -> tuple[int, dict[str, Any]]:
    """Status and answer to what is asked beside the conversation."""
    if path.endswith(("/count_tokens", "/input_tokens")):
        return 200, {"input_tokens": 7}
    if "/models" in path:
        listed = [{"id": "a-model", "object": "model", "type": "model"}]
        return 200, {"data": listed, "has_more": False, "object": "list"}
    return 404, {"error": {"message": "no such thing"}}
