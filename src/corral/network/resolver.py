"""Names looked up by the host's own resolver, away from the event loop.

getaddrinfo(3) cannot be interrupted, so it runs in a few daemon threads: they hold up neither the
loop nor the end of the process, and a name server that does not answer can occupy only them. Each
agent has a resolver of its own, so that its names keep no other agent's waiting.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from corral.policy import names

from .outcome import Failed

Addresses = tuple[names.IPAddress, ...]
Resolve = Callable[[str], Awaitable[Addresses]]

THREADS, FEWEST = 16, 4  # for all agents of a sandbox together; but so many for each
WAITING = 512  # lookups of an agent under way, waiting for a thread included
IDLE = 10.0  # seconds without a lookup after which a thread ends
PATIENCE = 15.0  # seconds for an answer; glibc gives up after 5 seconds for each of two tries
MOST = 32  # addresses of one name that are looked at
HOSTS_FILE = Path("/etc/hosts")
HOSTS_SIZE = 1 << 22  # bytes of it that are read: lists against advertising have some MB

_NOT_FOUND = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


@dataclass(eq=False, slots=True)
class _Lookup:
    """A name that is looked up, or waits for that; waiting: who wants to know."""

    name: str
    found: asyncio.Future[Addresses]
    waiting: int = 0


def resolvers(count: int) -> list[Resolver]:
    """One for each of so many agents."""
    return [Resolver(threads=max(FEWEST, THREADS // count)) for _ in range(count)]


class Resolver:
    """The host's resolver, for one agent. Lookups of one name that overlap are one."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._threads = threads
        self._lookups: dict[str, _Lookup] = {}  # all that are not over
        self._queue: dict[str, _Lookup] = {}  # those that no thread has begun, the oldest first
        self._changed = threading.Condition()  # over the queue and the number of threads
        self._started = 0

    async def __call__(self, name: str) -> Addresses:
        """All addresses of a canonical name, in the host's order. Raises Failed."""
        lookup = self._lookups.get(name)
        if lookup is None:
            if len(self._lookups) >= WAITING:
                raise Failed("too many lookups at once")
            lookup = self._begin(name)
        lookup.waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(lookup.found)
        except TimeoutError as error:
            raise Failed("the name could not be looked up in time") from error
        finally:
            lookup.waiting -= 1
            if not lookup.waiting:
                self._give_up(lookup)

    def _begin(self, name: str) -> _Lookup:
        lookup = _Lookup(name, asyncio.get_running_loop().create_future())
        lookup.found.add_done_callback(_looked_at)
        self._lookups[name] = lookup
        with self._changed:
            self._queue[name] = lookup
            if self._started < min(len(self._lookups), self._threads):
                self._started += 1
                threading.Thread(target=self._work, daemon=True, name="resolve").start()
            self._changed.notify()
        return lookup

    def _give_up(self, lookup: _Lookup) -> None:
        """Nobody waits for it any more: it is not begun. What has begun goes on to its end."""
        with self._changed:
            waited = self._queue.get(lookup.name) is lookup
            if waited:
                del self._queue[lookup.name]
        if waited:
            self._over(lookup)

    def _over(self, lookup: _Lookup, result: Addresses | Failed | None = None) -> None:
        del self._lookups[lookup.name]
        if result is None:
            lookup.found.cancel()
        elif isinstance(result, Failed):
            lookup.found.set_exception(result)
        else:
            lookup.found.set_result(result)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._queue, IDLE):
                    self._started -= 1
                    return
                lookup = self._queue.pop(next(iter(self._queue)))
            try:
                result: Addresses | Failed = look_up(lookup.name)
            except Failed as failure:
                result = failure
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                lookup.found.get_loop().call_soon_threadsafe(self._over, lookup, result)


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
