"""An interceptor in this process, and clients that come as the engine would bring them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.gateway.intercept.authority import Authority
from corral.gateway.intercept.held import Held
from corral.gateway.intercept.messages import Misplaced, Trouble
from corral.gateway.intercept.service import Service
from tests.support.https import TestAuthority

SECRET = "ghp_5eCr3t5eCr3t5eCr3t5eCr3t5eCr3t5e"
PLACEHOLDER = "ghp_corralplaceholderAbCdEf012345678"
OTHER_SECRET = "0th3rS3cr3t0th3rS3cr3t"
OTHER_PLACEHOLDER = "corralplaceholderXyZ12"
HOST, OTHER_HOST = "api.example.test", "other.example.test"
assert len(SECRET) == len(PLACEHOLDER) and len(OTHER_SECRET) == len(OTHER_PLACEHOLDER)


class Door:
    """A running interceptor. words: what it told its parent."""

    def __init__(self, path: Path, authority: Authority) -> None:
        self.path = path
        self.authority = authority
        self.words: list[Misplaced | Trouble] = []

    def trust(self, *protocols: str) -> ssl.SSLContext:
        """What a program in the sandbox has."""
        context = ssl.create_default_context(cadata=self.authority.pem)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    @contextlib.asynccontextmanager
    async def raw(
        self, port: int, *, name: str = HOST, addresses: tuple[str, ...] = ("127.0.0.1",)
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, after the engine's line."""
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        line = {"agent": 1, "name": name, "port": port, "addresses": addresses}
        writer.write(json.dumps(line).encode() + b"\n")
        try:
            yield reader, writer
        finally:
            writer.close()
            # After a handshake that failed Python 3.13 does not say that it is closed.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def tls(
        self,
        port: int,
        *protocols: str,
        name: str = HOST,
        sni: str | None = None,
        addresses: tuple[str, ...] = ("127.0.0.1",),
        trust: ssl.SSLContext | None = None,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection with TLS."""
        async with self.raw(port, name=name, addresses=addresses) as (reader, writer):
            context = trust or self.trust(*(protocols or ("http/1.1",)))
            await writer.start_tls(context, server_hostname=sni or name)
            yield reader, writer

    async def ask(self, port: int, request: bytes, **options: str) -> bytes:
        """One request with `Connection: close`; all that comes back."""
        name = options.get("name", HOST)
        async with self.tls(port, name=name) as (reader, writer):
            writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return await asyncio.wait_for(reader.read(-1), 20)


def request(
    *headers: str, path: str = "/", host: str = HOST, port: int, body: bytes = b""
) -> bytes:
    """A request as bytes."""
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def holding(ports: list[int]) -> tuple[Held, ...]:
    """Two secrets, each for a host of its own, at these ports."""
    return (
        Held(
            "TOKEN",
            SECRET.encode(),
            PLACEHOLDER.encode(),
            tuple(f"{HOST}:{port}" for port in ports),
            b"authorization",
        ),
        Held(
            "OTHER",
            OTHER_SECRET.encode(),
            OTHER_PLACEHOLDER.encode(),
            tuple(f"{OTHER_HOST}:{port}" for port in ports),
            b"x-api-key",
        ),
    )


@pytest.fixture
def upstreams(tmp_path: Path) -> TestAuthority:
    """The authority that the interceptor trusts."""
    return TestAuthority(tmp_path / "upstreams")


@contextlib.asynccontextmanager
async def intercepting(
    tmp_path: Path, upstreams: TestAuthority, *ports: int
) -> AsyncIterator[Door]:
    """An interceptor for the two secrets, at hosts with these ports."""
    authority = Authority((HOST, OTHER_HOST))
    door = Door(tmp_path / f"socket-{ports[0]}", authority)
    service = Service(
        holding(list(ports)), authority, str(upstreams.file), lambda word: door.words.append(word)
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(door.path))
        listener.listen(64)
        task = asyncio.create_task(service.serve(listener))
        try:
            yield door
        finally:
            task.cancel()
            await asyncio.wait((task,))
