"""What the gateway adds to a request and to each event of a stream, beside mitmproxy.

    python -m bench.gateway [--runs N] [--requests N] [--guest]

One upstream on loopback, one client program, three ways between them:

    straight    the client asks the upstream: the floor
    gateway     the gateway's own process, confined, with a key, transcript and budget
    mitmproxy   mitmdump as a reverse proxy that adds a header, answers streamed

The upstream writes the time into each event (CLOCK_MONOTONIC, the same for all processes) and
sends them a few milliseconds apart, so what is measured is time on the way, not throughput. Ways
take turns. With --guest the same from within a sandbox, straight by the egress engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from corral.events import silent
from corral.host import measure
from corral.paths import config_file
from corral.proc import Helpers
from corral.sandbox import make_plan, prepare, start
from corral.sandbox.gateway import opened_gateway
from corral.sandbox.planning import host_facts
from corral.sandbox.run_folder import run_folder
from corral.spec import load_spec

from .measure import arguments, median, show, workspace

KEY = "sk-ant-a-key-that-is-made-up-0123456789"
EVENTS = 100  # of one stream
APART, APART_MANY = 0.005, 0.05  # seconds between them; of 50 streams, together 1,000 a second
TURN = 50  # requests before the next way has its turn
PROMPT = "word " * 4000  # some 20 KB, as an agent's request has and more
ASK = {"model": "claude-opus-5", "max_tokens": 100}
BODY = json.dumps({**ASK, "messages": [{"role": "user", "content": PROMPT}]}).encode()


async def upstream() -> None:
    """The model server, a process of its own. Prints its port."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    whole = {"type": "message", "content": [{"type": "text", "text": "x" * 400}], "usage": usage}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked = json.loads(await request.content.read())
        if not asked.get("stream"):
            return web.json_response(whole)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(EVENTS):
            await asyncio.sleep(asked["metadata"]["apart"])
            delta = {"type": "text_delta", "text": "word ", "at": time.monotonic_ns()}
            said = {"type": "content_block_delta", "index": 0, "delta": delta, "n": number}
            text = f"event: content_block_delta\ndata: {json.dumps(said)}\n\n"
            await response.write(text.encode())
        last = {"type": "message_delta", "delta": {}, "usage": usage}
        await response.write(f"data: {json.dumps(last)}\n\n".encode())
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def other_process(argv: list[str]) -> Any:
    """A process, killed at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Way:
    """A way to the upstream."""

    def __init__(self, url: str, socket: Path | None = None) -> None:
        connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0)
        if socket is not None:
            connector = aiohttp.UnixConnector(str(socket), limit=0)
        self.session = aiohttp.ClientSession(connector=connector)
        self.url = f"{url}/v1/messages"
        self.requests: list[float] = []
        self.events: list[float] = []
        self.many: list[float] = []

    async def ask(self) -> None:
        """One request that is not streamed."""
        began = time.monotonic()
        async with self.session.post(self.url, data=BODY) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
        self.requests.append(time.monotonic() - began)

    async def stream(self, found: list[float], apart: float) -> None:
        """One stream; how long each of its events was on its way."""
        asked = {**ASK, "stream": True, "messages": [], "metadata": {"apart": apart}}
        body = json.dumps(asked).encode()
        seen = 0
        async with self.session.post(self.url, data=body) as answer:
            async for line in answer.content:
                if line.startswith(b"data: ") and b'"at"' in line:
                    at = json.loads(line[6:])["delta"]["at"]
                    found.append((time.monotonic_ns() - at) / 1e9)
                    seen += 1
        assert seen == EVENTS, seen


def configure(folder: Path, port: int) -> None:
    """A user's configuration with one gateway, to the upstream."""
    os.environ["CORRAL_CONFIG_DIR"] = str(folder / "config")
    os.environ["CORRAL_STATE_DIR"] = str(folder / "state")
    key = folder / "key"
    key.write_text(KEY)
    config_file().parent.mkdir(parents=True)
    config_file().write_text(
        f'[gateway.anthropic]\nupstream = "http://127.0.0.1:{port}"\n'
        f'key = {{ file = "{key}" }}\nbudget_usd = 1000000\n'
    )


@contextlib.asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Path]:
    """The gateway's process as a sandbox has it, without the sandbox; its socket."""
    project = folder / "project"
    project.mkdir()
    spec = load_spec(project, {"network.gateways": ["anthropic"]}, os.environ)
    facts = measure()
    plan = make_plan(spec, facts, os.environ)
    assert facts.bwrap is not None
    with run_folder(plan.name) as run:
        async with (
            Helpers.start(facts.bwrap.argv, root=os.getuid() == 0, run_folder=None) as helpers,
            opened_gateway(plan, helpers, run, facts, os.environ, print, kept=True) as place,
        ):
            assert place is not None
            yield place(1)


def resident() -> float:
    """MiB of the gateway's process (RSS)."""
    for process in psutil.Process().children(recursive=True):
        words = process.cmdline()
        if words[-2:] == ["-m", "corral.gateway"] and "--unshare-pid" not in words:
            return float(process.memory_info().rss) / (1 << 20)
    raise RuntimeError("there is no gateway")


async def measured(options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    """The rows of the table."""
    argv = [sys.executable, "-m", "bench.gateway", "--upstream"]
    rows: list[tuple[str, str]] = []
    with other_process(argv) as server:
        port = int(server.stdout.readline())
        configure(folder, port)
        proxy = [
            *(str(Path(sys.executable).with_name("mitmdump")), "-q", "--listen-host", "127.0.0.1"),
            *("--mode", f"reverse:http://127.0.0.1:{port}", "--listen-port", str(port + 1)),
            *("--set", "stream_large_bodies=1", "--set", f"confdir={folder / 'mitmproxy'}"),
            *("--modify-headers", f"/~q/x-api-key/{KEY}"),
        ]
        with other_process(proxy):
            async with gateway(folder) as place:
                ways = {
                    "straight": Way(f"http://127.0.0.1:{port}"),
                    "gateway": Way("http://anthropic.corral.internal", place),
                    "mitmproxy": Way(f"http://127.0.0.1:{port + 1}"),
                }
                await up(ways["mitmproxy"])
                try:
                    await take_turns(ways, options.runs)
                    rows = table(ways)
                    rows += await memory(ways["gateway"], options.requests)
                finally:
                    for way in ways.values():
                        await way.session.close()
    return rows


async def up(way: Way) -> None:
    """Wait until a program answers that tells nobody when it does."""
    while True:
        try:
            await way.ask()
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
        else:
            return


async def take_turns(ways: dict[str, Way], runs: int) -> None:
    """Measure each way, in turns, after a first request that does not count."""
    for way in ways.values():
        await way.ask()
        way.requests.clear()
    for _ in range(runs):
        for way in ways.values():
            for _ in range(TURN):
                await way.ask()
        for way in ways.values():
            await way.stream(way.events, APART)
    for way in ways.values():
        await asyncio.gather(*(way.stream(way.many, APART_MANY) for _ in range(50)))


def table(ways: dict[str, Way]) -> list[tuple[str, str]]:
    """Medians of each way, and what it adds to the floor."""
    rows = []
    floor = ways["straight"]
    for what in ("requests", "events", "many"):
        label = {"requests": "request", "events": "event", "many": "event, 50 streams"}[what]
        lowest = median(getattr(floor, what))
        for name, way in ways.items():
            found = sorted(getattr(way, what))
            middle, late = median(found), found[int(len(found) * 0.99)]
            added = "" if way is floor else f", {1e3 * (middle - lowest):+.2f} ms"
            text = f"{1e3 * middle:.2f} ms{added} (99%: {1e3 * late:.2f})"
            rows.append((f"{label}, {name}", text))
    return rows


async def memory(way: Way, requests: int) -> list[tuple[str, str]]:
    """The gateway's memory after a tenth of the requests, and after all."""
    marks = []
    for part in range(10):
        for _ in range(requests // 10):
            await way.ask()
        if part in (0, 9):
            marks.append(resident())
    return [
        (f"memory after {requests // 10} requests", f"{marks[0]:.1f} MiB"),
        (f"memory after {requests} requests", f"{marks[1]:.1f} MiB"),
    ]


GUEST = """
import http.client, json, sys, time
body = sys.stdin.buffer.read()
def measured(host, port):
    connection, found = http.client.HTTPConnection(host, port), []
    for number in range(33):
        began = time.monotonic()
        connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        if number > 2:
            found.append(time.monotonic() - began)
    return sorted(found)[len(found) // 2]
turns = [(measured(*straight), measured(*gateway)) for straight, gateway in
         [(("bench.test", 7000), ("anthropic.corral.internal", 80))] * 3]
print(json.dumps([sorted(each)[1] for each in zip(*turns)]))
"""


async def from_guest(folder: Path) -> list[tuple[str, str]]:
    """The same request from within a sandbox: by the engine straight, and by the gateway."""
    argv = [sys.executable, "-m", "bench.gateway", "--upstream"]
    with other_process(argv) as server:
        port = int(server.stdout.readline())
        configure(folder, port)
        project = folder / "project"
        project.mkdir()
        wanted: dict[str, object] = {
            "network.gateways": ["anthropic"],
            "network.allow": ["bench.test:7000"],
            "network.hosts": [f"bench.test:7000=127.0.0.1:{port}"],
        }
        spec = load_spec(project, wanted, os.environ)
        facts = host_facts(silent)
        plan = make_plan(spec, facts, os.environ)
        async with start(plan, prepare(plan, facts, silent), silent) as sandbox:
            execution = await sandbox.exec(["/usr/bin/python3", "-c", GUEST])
            await execution.stdin.write(BODY)
            await execution.stdin.end()
            text = b""
            while data := await execution.stdout.read():
                text += data
            await execution.wait()
    straight, through = json.loads(text)
    accel = plan.machine.accel
    return [
        (f"request from the guest ({accel}), by the engine", f"{straight * 1e3:.1f} ms"),
        (
            f"request from the guest ({accel}), by the gateway",
            f"{through * 1e3:.1f} ms, {1e3 * (through - straight):+.1f} ms",
        ),
    ]


def main() -> None:
    """Measure, and print a table."""
    if "--upstream" in sys.argv:
        asyncio.run(upstream())
        return
    options = arguments(
        __doc__ or "",
        runs=6,
        further={
            "--requests": {"type": int, "default": 10_000, "help": "for the memory (10000)"},
            "--guest": {"action": "store_true", "help": "from within a sandbox instead"},
        },
    )
    with workspace() as folder:
        work = from_guest(folder) if options.guest else measured(options, folder)
        rows = asyncio.run(work)
    title = f"{len(BODY)} bytes to ask; {EVENTS} events a stream, {APART * 1e3:g} ms apart"
    show(title, rows, as_json=options.json)


if __name__ == "__main__":
    main()
