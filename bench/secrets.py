"""Requests through the interceptor of secrets, beside the same requests straight to the server.

    python -m bench.secrets [--runs N] [--requests N] [--size MIB]

One HTTPS server on loopback, in a process of its own; one client, first straight, then through
an interceptor as a sandbox starts it (a confined process). Printed: seconds until it has said what
a sandbox's start waits for, and until it serves (mitmproxy is loaded meanwhile); milliseconds of
each of many requests on one connection; MB/s of a large answer; KiB of memory it takes at the end.
Without a machine: what the channel and the guest add is bench.net's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import psutil
from tests.support import examples
from tests.support.https import Request, TestAuthority, serving

from corral.events import silent
from corral.host import measure
from corral.plan import Plan
from corral.plan.trust import CERTIFICATE, placeholders
from corral.policy import Key, Secret
from corral.proc import Helpers
from corral.sandbox.secrets import intercepting

from .measure import median

HOST, TOKEN = "api.bench.test", "ghp_r3aLr3aLr3aLr3aLr3aLr3aLr3aLr3aL"
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Opener = Callable[[], "contextlib.AbstractAsyncContextManager[Opened]"]


def serve(context_of: Path, told: Connection) -> None:
    """The server's process: /N is answered by N bytes."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        left, piece = int(request.path[1:]), b'{"some": "json text"}\n' * 3000
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left > 0:
            writer.write(piece[:left])
            left -= len(piece)
            await writer.drain()

    async def run() -> None:
        authority = TestAuthority(context_of)
        async with serving(authority.context(HOST), answer) as server:
            told.send((server.port, str(authority.file)))
            await asyncio.get_running_loop().create_future()

    asyncio.run(run())


async def ask(streams: Opened, size: int, placeholder: str) -> float:
    """Seconds of one request, to the last byte of its answer."""
    reader, writer = streams
    began = time.perf_counter()
    head = f"GET /{size} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {placeholder}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    while size:
        size -= len(await reader.read(min(size, 1 << 18)))
    return time.perf_counter() - began


async def measured(
    opener: Opener, wanted: argparse.Namespace, placeholder: str
) -> tuple[float, float]:
    """Milliseconds of a small request, MB/s of a large one: medians."""
    async with opener() as streams:
        small = [await ask(streams, 1000, placeholder) for _ in range(wanted.requests)]
        large = [await ask(streams, wanted.size << 20, placeholder) for _ in range(wanted.runs)]
    return median(small) * 1000, (wanted.size << 20) / 1e6 / median(large)


async def through(wanted: argparse.Namespace, folder: Path, port: int, trusted: str) -> None:
    """Measure and print."""
    facts = measure()
    assert facts.bwrap is not None
    key = Key(kind="env", value=("TOKEN",))
    secret = Secret(name="TOKEN", hosts=(HOST,), header="authorization", key=key)
    plan = msgspec.structs.replace(examples.plan(), secrets=(secret,))
    environ = {**os.environ, "TOKEN": TOKEN, "SSL_CERT_FILE": trusted}
    (folder / "sockets").mkdir()

    @contextlib.asynccontextmanager
    async def straight() -> AsyncIterator[Opened]:
        context = ssl.create_default_context(cafile=trusted)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=HOST, limit=1 << 20
        )
        yield reader, writer
        writer.close()

    floor = await measured(straight, wanted, TOKEN)
    async with Helpers.start(facts.bwrap.argv, root=os.getuid() == 0, run_folder=None) as helpers:
        began = time.perf_counter()
        run = intercepting(plan, helpers, folder, facts, environ, silent, {})
        async with run as door:
            said = time.perf_counter() - began

            @contextlib.asynccontextmanager
            async def intercepted() -> AsyncIterator[Opened]:
                line = {"agent": 1, "name": HOST, "port": 443, "addresses": ["127.0.0.1"]}
                opened = await asyncio.open_unix_connection(str(door.socket), limit=1 << 20)
                opened[1].write(json.dumps({**line, "to_port": port}).encode() + b"\n")
                trust = ssl.create_default_context(cadata=certificate(door.plan))
                await opened[1].start_tls(trust, server_hostname=HOST)
                yield opened
                opened[1].close()

            async with intercepted():
                served = time.perf_counter() - began
            there = await measured(intercepted, wanted, placeholders(door.plan)["TOKEN"])
            memory = max(
                process.memory_info().rss
                for process in psutil.Process().children(recursive=True)
                if process.cmdline()[-1:] == ["corral.gateway.intercept"]
            )
    print(f"said what a start waits for   {said:6.2f} s")
    print(f"first connection served       {served:6.2f} s")
    for what, unit, one, two in zip(
        ("a request", "a large answer"), ("ms", "MB/s"), floor, there, strict=True
    ):
        print(f"{what:15} straight {one:8.2f}, intercepted {two:8.2f} {unit} = {two / one:.2f} x")
    print(f"memory {memory >> 10} KiB")


def certificate(plan: Plan) -> str:
    """The sandbox's authority."""
    files = plan.agents[0].setup["files"]
    assert isinstance(files, list)
    return next(str(file[1]) for file in files if file[0] == CERTIFICATE)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description="the interceptor beside a straight connection")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--size", type=int, default=64)
    wanted = parser.parse_args()
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as name:
        server = multiprocessing.Process(target=serve, args=(Path(name) / "ca", there), daemon=True)
        server.start()
        port, trusted = here.recv()
        asyncio.run(through(wanted, Path(name), port, trusted))
        server.kill()


if __name__ == "__main__":
    main()
