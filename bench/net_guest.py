"""The network as a program in a sandbox has it: a download, short connections, what a start takes.

    python -m bench.net_guest [--runs N] [--mebibytes N] [--connections N] [--json]

A server on loopback stands for a host; a sandbox that may reach it downloads from it, sends to it,
and connects to it many times, one after the other and 16 at once. Beside it in the same run: the
same program on this host, straight to the server (an emulated guest is some ten times slower by
itself), and a command's output of the same size over the same channel, which is what the carrier
can do. Starts are taken in turn, with a network and without; the medians are compared. Bar: a
network adds less than 0.05 s to a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from corral import AsyncSandbox

from .measure import arguments, median, show, workspace

BAR = 0.05  # seconds that a network may add to a start
PIECE = bytes(1 << 16)

# Runs here and in the sandbox. A request is a line: how many bytes are wanted, and how many come.
CLIENT = """
import concurrent.futures, json, socket, sys, time
host, port, size, count = sys.argv[1], *map(int, sys.argv[2:])
def ask(down, up):
    with socket.create_connection((host, port)) as s:
        s.sendall(b"%d %d.\\n" % (down, up))
        piece = bytes(65536)
        for start in range(0, up, 65536):
            s.sendall(piece[: min(65536, up - start)])
        got = 0
        while data := s.recv(262144):
            got += len(data)
        assert got == down + 1, got
def seconds(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began
def at_once():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: ask(10, 0), range(count)))
ask(10, 0)
print(json.dumps({
    "down": seconds(lambda: ask(size, 0)),
    "up": seconds(lambda: ask(0, size)),
    "short": seconds(lambda: [ask(10, 0) for _ in range(count)]),
    "short at once": seconds(at_once),
}))
"""


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Serves CLIENT on loopback, a thread for each connection; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:

        def serve(connection: socket.socket) -> None:
            with connection, connection.makefile("rb") as said, contextlib.suppress(OSError):
                down, up = map(int, said.readline().rstrip(b".\n").split())
                while up > 0:
                    up -= len(said.read(min(up, len(PIECE))))
                for start in range(0, down, len(PIECE)):
                    connection.sendall(PIECE[: min(len(PIECE), down - start)])
                connection.sendall(b".")
                connection.shutdown(socket.SHUT_WR)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port: int = listener.getsockname()[1]
        yield port


def network(port: int) -> dict[str, object]:
    """The settings of a sandbox that may reach it, as bench.test on port 7000."""
    return {
        "network.allow": ["bench.test:7000"],
        "network.hosts": [f"bench.test:7000=127.0.0.1:{port}"],
        "network.max_connections": 600,
        "network.rate": 10000,
    }


async def in_sandbox(
    folder: Path, port: int, size: int, count: int
) -> tuple[dict[str, float], float]:
    """Seconds of each part; and of the same bytes as a command's output."""
    async with AsyncSandbox(workspace=folder, cpus=2, settings=network(port)) as box:
        argv = ["python3", "-c", CLIENT, "bench.test", "7000", str(size), str(count)]
        result = await box.exec(argv, timeout=600, check=True)
        process = await box.spawn(["head", "-c", str(size), "/dev/zero"])
        began = time.monotonic()
        got = 0
        while data := await process.stdout.read():
            got += len(data)
        assert got == size
        return json.loads(result.stdout), time.monotonic() - began


def on_host(port: int, size: int, count: int) -> dict[str, float]:
    """The same on this host."""
    argv = [sys.executable, "-c", CLIENT, "127.0.0.1", str(port), str(size), str(count)]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=600)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def started(folder: Path, settings: dict[str, object]) -> float:
    """Seconds from the request to the end of `true`."""
    began = time.monotonic()
    async with AsyncSandbox(workspace=folder, cpus=2, settings=settings) as box:
        await box.exec(["true"], check=True)
        return time.monotonic() - began


async def starts(folder: Path, port: int, runs: int) -> tuple[float, float]:
    """Medians without and with a network, in turn."""
    await started(folder, {})
    without, with_one = [], []
    for _ in range(runs):
        without.append(await started(folder, {}))
        with_one.append(await started(folder, network(port)))
    return median(without), median(with_one)


def main() -> None:
    """Measure and print."""
    wanted = arguments(
        "The network in a sandbox",
        runs=11,
        further={
            "--mebibytes": {"type": int, "default": 64},
            "--connections": {"type": int, "default": 1000},
        },
    )
    size, count = wanted.mebibytes << 20, wanted.connections
    with workspace() as folder, server() as port:
        host = on_host(port, size, count)
        guest, output = asyncio.run(in_sandbox(folder, port, size, count))
        without, with_one = asyncio.run(starts(folder, port, wanted.runs))
    megabytes = size / 1e6
    rows = [
        (f"{part} of {megabytes:.0f} MB", f"{megabytes / guest[key]:.1f} MB/s; "
         f"{megabytes / host[key]:.0f} MB/s straight on this host")
        for part, key in (("download", "down"), ("upload", "up"))
    ]  # fmt: skip
    rows.append(("the same as output", f"{megabytes / output:.1f} MB/s (what the channel does)"))
    for key, how in (("short", "one after the other"), ("short at once", "16 at once")):
        rows.append(
            (
                f"{count} connections, {how}",
                f"{1e3 * guest[key] / count:.2f} ms each; "
                f"{1e3 * host[key] / count:.2f} ms straight on this host",
            )
        )
    rows.append(("start without a network", f"{without:.3f} s"))
    added = with_one - without
    rows.append(("start with one", f"{with_one:.3f} s, {added:+.3f} s (bar {BAR})"))
    show(f"network in a sandbox, {os.cpu_count()} processors", rows, as_json=wanted.json)
    sys.exit(added > BAR)


if __name__ == "__main__":
    main()
