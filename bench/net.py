"""Bytes and connections through the egress engine, beside plain loopback and passt.

    python -m bench.net [--runs N] [--size MIB] [--connections N]

One server on loopback, one client program, three ways between them:

    loopback   the client connects to the server: the floor
    engine     the client connects to a front that hands its socket on as the stream of a guest
    pasta      the client runs in a network namespace that passt's pasta joins to this host

Printed: MB/s of a large download, and milliseconds for each of many short connections one after the
other (connect, 100 bytes there, 100 bytes back, close), each also as a ratio to loopback. Without a
machine: what the channel and the guest add is measured by bench.net_guest, which starts one.
passt is taken from PATH, or else fetched with apt-get and unpacked into the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.network import Engine
from corral.paths import cache_dir
from corral.policy import Address, Limits, Network
from corral.policy.rules import parse_rules

from .measure import arguments, median, show

NAME, PORT = "bench.test", 7000
LIMITS = Limits(connections=4096, rate=1e6)

# The server: a line says how many bytes it is to send; each connection is one answer.
SERVER = """
import os, socket, sys, threading
listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listening.getsockname()[1], flush=True)
block = bytes(1 << 20)
def serve(sock):
    with sock:
        left = int(sock.makefile("rb").readline())
        while left:
            left -= sock.send(block[:left])
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""

CLIENT = """
import json, socket, sys, time
host, port, size, count = sys.argv[1], *map(int, sys.argv[2:])
buffer = bytearray(1 << 20)
def once(size):
    with socket.create_connection((host, port)) as sock:
        sock.sendall(b"%099d\\n" % size)
        got = 0
        while n := sock.recv_into(buffer):
            got += n
    assert got == size, (got, size)
once(100)
began = time.perf_counter()
once(size)
download = time.perf_counter() - began
began = time.perf_counter()
for _ in range(count):
    once(100)
print(json.dumps([download, (time.perf_counter() - began) / max(1, count)]))
"""


class _Front:
    """A socket as the engine's stream."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._ended = False

    async def read(self, limit: int = 1 << 16) -> bytes:
        """The next bytes; at the end of the stream it is closed."""
        return await self._loop.sock_recv(self._sock, limit)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """All of it."""
        await self._loop.sock_sendall(self._sock, data)

    async def end(self) -> None:
        """No more."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self, reason: str = "") -> None:
        """Give it up."""
        print(f"reset: {reason}", file=sys.stderr)
        self._sock.close()


async def front(server: int) -> None:
    """The process that has the engine. Prints its port; ends with its standard input."""
    network = Network(
        mode="allow",
        allow=parse_rules(f"{NAME}:{PORT}"),
        addresses=(Address(name=NAME, port=PORT, address="127.0.0.1", to_port=server),),
        limits=LIMITS,
    )
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    number = 1
    async with Engine(network, agents={1}) as engine:
        while True:
            sock, _ = await loop.sock_accept(listening)
            sock.setblocking(False)
            params: dict[str, object] = {"stream": number, "agent": 1, "name": NAME, "port": PORT}
            number += 2
            engine.connect(params, _Front(sock))


@contextmanager
def _process(argv: list[str]) -> Iterator[int]:
    """A program that prints its port; killed at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def client(before: list[str], host: str, port: int, size: int, count: int) -> tuple[float, float]:
    """Seconds of the download, and of each short connection."""
    argv = [*before, sys.executable, "-I", "-c", CLIENT, host, str(port), str(size), str(count)]
    finished = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    if finished.returncode:
        raise RuntimeError(finished.stderr[-2000:])
    download, short = json.loads(finished.stdout.splitlines()[-1])
    return float(download), float(short)


def pasta() -> Path | None:
    """passt's pasta: the one on PATH, or one fetched and unpacked; None where there is none."""
    if found := shutil.which("pasta"):
        return Path(found)
    folder = cache_dir() / "bench"
    program = folder / "usr" / "bin" / "pasta"
    if not program.exists() and shutil.which("apt-get"):
        folder.mkdir(exist_ok=True)
        fetched = subprocess.run(["apt-get", "download", "passt"], cwd=folder, capture_output=True)
        for package in folder.glob("passt_*.deb") if not fetched.returncode else ():
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return program if program.exists() else None


def gateway() -> str:
    """The default gateway, which pasta maps to this host's loopback (passt(1), --no-map-gw)."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000":
            return ".".join(str(each) for each in reversed(bytes.fromhex(words[2])))
    return ""


def measured(options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """What `client` measured, by the way that it went."""
    size, count = options.size << 20, options.connections
    ways: dict[str, list[tuple[float, float]]] = {}
    with (
        _process([sys.executable, "-I", "-c", SERVER]) as server,
        _process([sys.executable, "-m", "bench.net", "--front", str(server)]) as engine,
    ):
        program, mapped = pasta(), gateway()
        for _ in range(options.runs):
            direct = client([], "127.0.0.1", server, size, count)
            ways.setdefault("loopback", []).append(direct)
            ways.setdefault("engine", []).append(client([], "127.0.0.1", engine, size, count))
            if program is not None and mapped:
                before = ["unshare", "-r", str(program), "--config-net", "--"]
                found = client(before, mapped, server, size, count)
                ways.setdefault("pasta", []).append(found)
    return ways


def main() -> None:
    """Measure, and print a table."""
    options = arguments(
        __doc__ or "",
        runs=3,
        further={
            "--size": {"type": int, "default": 256, "help": "MiB of the download (256)"},
            "--connections": {"type": int, "default": 1000, "help": "short connections (1000)"},
        },
    )
    ways = measured(options)
    floor = [median([run[column] for run in ways["loopback"]]) for column in (0, 1)]
    rows = []
    for name, runs in ways.items():
        download, short = (median([run[column] for run in runs]) for column in (0, 1))
        speed = (options.size << 20) / download / 1e6
        rows.append((f"{name}, download", f"{speed:.0f} MB/s (x{floor[0] / download:.2f})"))
        rows.append((f"{name}, connection", f"{short * 1e3:.2f} ms (x{short / floor[1]:.1f})"))
    if "pasta" not in ways:
        rows.append(("pasta", "not to be had here: no package, or no default gateway"))
    title = f"{options.size} MiB, then {options.connections} connections; median of {options.runs}"
    show(title, rows, as_json=options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--front"]:
        asyncio.run(front(int(sys.argv[2])))
    else:
        main()
