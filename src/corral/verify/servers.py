"""Servers on loopback that stand for what a sandbox reaches: they say what they got."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path

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
    """Those of a run, with what certifies them and the credentials that lead to them.

    good, bad: what the policy allows, and what it does not. model: behind the gateways. secret:
    of the host of a secret; forged: in its place, certified by nobody. key, token: credentials
    that the sandbox must never see. authority: certifies `secret`; None where nothing can.
    """

    def __init__(self, folder: Path) -> None:
        self.good, self.bad, self.model = Server(), Server(), Server()
        self.secret, self.forged = Server(), Server()
        self.all = (self.good, self.bad, self.model, self.secret, self.forged)
        self.key = f"sk-verify-{secrets.token_hex(24)}"
        self.token = f"verify-token-{secrets.token_hex(24)}"
        self.key_file, self.token_file = folder / "key", folder / "token"
        for file, text in ((self.key_file, self.key), (self.token_file, self.token)):
            file.touch(mode=0o600)
            file.write_text(text)
        self.authority: Path | None = None
        self._contexts: list[ssl.SSLContext] = []
        if find_spec("mitmproxy") is not None and find_spec("cryptography") is not None:
            from .certificates import certified

            (self.authority, first), (_, second) = (
                certified(folder / name, host)
                for name, host in (("ours", "secret.test"), ("nobodys", "forged.test"))
            )
            self._contexts = [first, second]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.free = taken.getsockname()[1]  # a port that nobody has

    def variables(self) -> dict[str, str]:
        """What has what intercepts trust our authority."""
        return {"SSL_CERT_FILE": str(self.authority)} if self.authority is not None else {}

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """All of them listen."""
        async with contextlib.AsyncExitStack() as stack:
            for server in (self.good, self.bad, self.model):
                await server.listen(stack)
            for server, context in zip((self.secret, self.forged), self._contexts, strict=False):
                await server.listen(stack, context)
            yield

    def ports(self) -> set[int]:
        """On which this process listens for its own sake."""
        return {self.free, *(server.port for server in self.all)}

    def reset(self) -> None:
        """Forget what came, and say nothing special."""
        for server in self.all:
            server.reset()
            server.answer = plain
