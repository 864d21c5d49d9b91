"""Servers on loopback that stand for what a sandbox reaches: they say what they got."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import msgspec

MARK = b"the stand-in"
_MOST = 1 << 20  # bytes of a request


class Got(msgspec.Struct, frozen=True):
    """A request: its first line, its headers with lower-case names, its body."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """A header's value, those of several joined, "" without one."""
        return ", ".join(value for key, value in self.headers if key == name)


Answer = Callable[[Got], bytes]


def plain(_got: Got) -> bytes:
    """What a stand-in says that has nothing else to say."""
    return response(MARK)


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer of HTTP."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


class Server:
    """One of them. connections: how many were made. got: the requests."""

    def __init__(self, answer: Answer = plain) -> None:
        self.answer = answer
        self.port = 0
        self.connections = 0
        self.got: list[Got] = []

    async def listen(
        self, stack: contextlib.AsyncExitStack, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        stack.push_async_callback(_closed, server)
        self.port = server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Forget what came."""
        self.connections = 0
        self.got.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                got = await _read(reader)
                self.got.append(got)
                writer.write(self.answer(got))
                await writer.drain()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = tuple(
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    )
    fields = dict(headers)
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(min(size, _MOST))
            await reader.readline()
        await reader.readline()
    elif fields.get("content-length", "").isdigit():
        body = await reader.readexactly(min(int(fields["content-length"]), _MOST))
    return Got(head[0], headers, body)


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


class Servers:
    """Those of a scene. good, bad: what the policy allows, and what it does not."""

    def __init__(self) -> None:
        self.good = Server()
        self.bad = Server()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.free = taken.getsockname()[1]  # a port that nobody has

    def reset(self) -> None:
        """Forget what came."""
        for server in (self.good, self.bad):
            server.reset()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Servers]:
    """Servers that listen."""
    servers = Servers()
    async with contextlib.AsyncExitStack() as stack:
        for server in (servers.good, servers.bad):
            await server.listen(stack)
        yield servers
