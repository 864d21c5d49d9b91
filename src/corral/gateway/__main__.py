"""The gateway's process: `python -m corral.gateway`, started by `corral.sandbox.doors`.

Its configuration, a `Config`, stands in a descriptor; keys come by a pipe; it has a listening
socket for each agent. It ends by SIGTERM, or when the pipe of keys is closed: corral is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import resource
import signal
import socket
import ssl
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .config import Config
from .held import Keys
from .kept import Kept
from .prices import table
from .relay import CONNECT_SECONDS, SILENT_SECONDS, Relay

# corral.sandbox.doors has the same.
CONFIG_FD, KEYS_FD, TELL_FD, FIRST_LISTENER = 10, 11, 12, 20
_BACKLOG = 256
_MAX_LINE = 1 << 18
_MAX_HEADER = 64 << 10  # bytes
_IDLE_SECONDS = 300.0
_GRACE = 0.5  # seconds for requests under way, at the end
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_log = logging.getLogger("corral.gateway.server")


def close_up() -> None:
    """Let no other process of this user read the memory, in which keys are; write no core.

    And have descriptors for as many connections as agents may have, with one upstream for each.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Teller:
    """Tells corral something; what it does not read in time is lost."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def notice(self, text: str) -> None:
        """For the user."""
        self._say({"notice": text[:800]})

    def again(self, rejected: dict[str, str]) -> None:
        """Have keys found again."""
        self._say({"again": rejected})

    def _say(self, said: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, msgspec.json.encode(said) + b"\n")


def session() -> aiohttp.ClientSession:
    """The client: certificates checked, no cookie, no proxy, nothing unpacked."""
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=60.0, ttl_dns_cache=30, ssl=ssl.create_default_context()
    )
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
    )


async def serve(config: Config, keys_fd: int, tell_fd: int, listeners: list[socket.socket]) -> None:
    """Until it is told to end."""
    teller = Teller(tell_fd)
    kept = Kept(Path(config.folder), teller.notice, keep=config.kept)
    names = [gateway.name for gateway in config.gateways if gateway.key is not None]
    keys = Keys(names, teller.again, teller.notice)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(keys_fd, "rb", 0)
    )
    async with session() as client, asyncio.TaskGroup() as group:
        relay = Relay(config, keys, kept, client, table())
        listening = group.create_task(keys.listen(reader), name="listen-for-keys")
        listening.add_done_callback(lambda _task: stop.set())
        syncing = group.create_task(kept.sync(), name="sync")
        runners = []
        for agent, listener in zip(config.agents, listeners, strict=True):
            runners.append(await serving(relay, agent))
            await web.SockSite(runners[-1], listener, backlog=_BACKLOG).start()
        await stop.wait()
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        listening.cancel()
        syncing.cancel()
    kept.close()


class _OwnFaults(logging.Filter):
    """What a guest sends that is no HTTP is its own affair; it gets 400, and nobody is told."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | ConnectionError)


async def serving(relay: Relay, agent: int) -> web.ServerRunner:
    """What serves the sockets of an agent."""
    if not _log.filters:
        _log.addFilter(_OwnFaults())
    server = web.Server(
        functools.partial(relay.handle, agent),
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        logger=_log,
        keepalive_timeout=_IDLE_SECONDS,
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
        lingering_time=1.0,
    )
    runner = web.ServerRunner(server, shutdown_timeout=_GRACE)
    await runner.setup()
    return runner


def main() -> None:
    """Serve what the descriptors hold."""
    close_up()
    with os.fdopen(CONFIG_FD, "rb") as file:
        config = msgspec.json.decode(file.read(), type=Config)
    listeners = []
    for place in range(len(config.agents)):
        listener = socket.socket(fileno=FIRST_LISTENER + place)
        listener.setblocking(False)
        listeners.append(listener)
    asyncio.run(serve(config, KEYS_FD, TELL_FD, listeners))


if __name__ == "__main__":
    main()
