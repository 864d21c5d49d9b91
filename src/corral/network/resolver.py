"""Names looked up by the host's own resolver, away from the event loop.

getaddrinfo(3) cannot be interrupted, so it runs in a few daemon threads: they hold up neither the
loop nor the end of the process, and a name server that does not answer can occupy only them.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from corral.policy import names

from .outcome import Failed

Addresses = tuple[names.IPAddress, ...]
Resolve = Callable[[str], Awaitable[Addresses]]

THREADS = 16
WAITING = 512  # lookups that may wait for a thread
IDLE = 10.0  # seconds without a lookup after which a thread ends
PATIENCE = 15.0  # seconds for an answer; glibc gives up after 5 seconds for each of two tries
MOST = 32  # addresses of one name that are looked at
HOSTS_FILE = Path("/etc/hosts")
HOSTS_SIZE = 1 << 22  # bytes of it that are read: lists against advertising have some MB

_NOT_FOUND = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

Job = Callable[[], None]


class Resolver:
    """The host's resolver. Lookups of one name that overlap are one."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = threads
        self._started = 0
        self._lock = threading.Lock()
        self._running: dict[str, asyncio.Future[Addresses]] = {}

    async def __call__(self, name: str) -> Addresses:
        """All addresses of a canonical name, in the host's order. Raises Failed."""
        running = self._running.get(name)
        if running is None:
            if len(self._running) >= WAITING:
                raise Failed("too many lookups at once")
            running = self._begin(name)
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(running)
        except TimeoutError as error:
            raise Failed("the name could not be looked up in time") from error

    def _begin(self, name: str) -> asyncio.Future[Addresses]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Addresses] = loop.create_future()
        future.add_done_callback(_looked_at)
        self._running[name] = future

        def done(result: Addresses | Failed) -> None:
            self._running.pop(name, None)
            if isinstance(result, Failed):
                future.set_exception(result)
            else:
                future.set_result(result)

        def job() -> None:
            try:
                result: Addresses | Failed = look_up(name)
            except Failed as failure:
                result = failure
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, result)

        with self._lock:
            self._jobs.put(job)
            if self._started < min(len(self._running), self._threads):
                self._started += 1
                threading.Thread(target=self._work, daemon=True, name="resolve").start()
        return future

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._started -= 1
                        return
                continue
            job()


def _looked_at(future: asyncio.Future[Addresses]) -> None:
    """Those who waited have it, or gave up: not an error that nobody saw."""
    if not future.cancelled():
        future.exception()


def look_up(name: str) -> Addresses:
    """All addresses of a name, by /etc/hosts and then by getaddrinfo(3). Raises Failed.

    The name is given to the latter with its last dot: no search list of the host's resolv.conf is
    tried, by which a name of the internet could become one of the local network.
    """
    known = _hosts_file(name)
    if known:
        return known
    try:
        found = socket.getaddrinfo(f"{name}.".encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NOT_FOUND:
            raise Failed("no such name") from error
        raise Failed(f"the name could not be looked up: {error.strerror}") from error
    except (OSError, UnicodeError) as error:
        raise Failed(f"the name could not be looked up: {error}") from error
    addresses = dict.fromkeys(_address(str(each[4][0])) for each in found)
    return tuple(addresses)


def _address(text: str) -> names.IPAddress:
    # A zone id, which a resolver can add to a link-local address, makes it no other address.
    return ip_address(text.partition("%")[0])


def _hosts_file(name: str) -> Addresses:
    try:
        with HOSTS_FILE.open(encoding="utf-8", errors="replace") as file:
            text = file.read(HOSTS_SIZE)
    except OSError:
        return ()
    if name not in text.lower():
        return ()
    found: list[IPv4Address | IPv6Address] = []
    for line in text.lower().splitlines():
        words = line.partition("#")[0].split()
        if name in words[1:]:
            try:
                found.append(_address(words[0]))
            except ValueError:
                continue
    return tuple(dict.fromkeys(found))
