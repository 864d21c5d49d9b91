"""Connecting from the host: to addresses that were checked, and to the doors' Unix sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from corral.policy.addresses import forms
from corral.policy.names import IPAddress, from_address

from .outcome import Failed
from .routes import delivered_here

HEAD_START = 0.25  # seconds before the next address is tried beside the first, RFC 8305 5
PATIENCE = 20.0  # seconds for all addresses of a name
# Attempts of all connections. Beyond, one has no two at once: a name that leads to many addresses
# where nobody answers would take the descriptors that `Engine` leaves to others.
MOST_ATTEMPTS = 128

_Attempt = asyncio.Task[tuple[socket.socket, IPAddress]]
_attempts: set[_Attempt] = set()

_SAID = {
    errno.ECONNREFUSED: "connection refused",
    errno.ETIMEDOUT: "no answer in time",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed",
    errno.EMFILE: "too many open files on the host",
    errno.ENFILE: "too many open files on the host",
    errno.ENOENT: "it is not running",
}


def said(error: OSError) -> str:
    """What went wrong, in a few words."""
    return _SAID.get(error.errno or 0) or (error.strerror or "failed").lower()


def is_own(address: IPAddress) -> bool:
    """Whether the host would deliver to itself what it sends there, by its routes.

    An IPv4 address in one of IPv6 (mapped, or translated by NAT64) is that address. Raises Failed
    when it cannot be found out, which who makes connections can cause.
    """
    try:
        return any(map(delivered_here, forms(from_address(address).address or address)))
    except OSError as error:
        raise Failed(said(error)) from error


def interleave(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """IPv6 and IPv4 by turns, beginning with the kind that the resolver has first (RFC 8305 4)."""
    if not addresses:
        return []
    first = [each for each in addresses if each.version == addresses[0].version]
    second = [each for each in addresses if each.version != addresses[0].version]
    mixed: list[IPv4Address | IPv6Address] = []
    for place in range(max(len(first), len(second))):
        mixed += first[place : place + 1] + second[place : place + 1]
    return mixed


async def dial(addresses: Sequence[tuple[IPAddress, int]]) -> tuple[socket.socket, IPAddress]:
    """A connection to the first of these addresses that answers, each tried a little after the one
    before. Raises Failed with what the last one said.
    """
    attempts: list[_Attempt] = []  # the oldest first
    last = Failed("no address")
    waiting = list(addresses)
    try:
        async with asyncio.timeout(PATIENCE):
            while waiting or attempts:
                if waiting:
                    if attempts and len(_attempts) >= MOST_ATTEMPTS:
                        last = Failed("no answer in time")
                        await _give_up([attempts.pop(0)])
                    attempts.append(_begun(*waiting.pop(0)))
                done, _rest = await asyncio.wait(
                    attempts,
                    timeout=HEAD_START if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                attempts = [each for each in attempts if each not in done]
                winner: tuple[socket.socket, IPAddress] | None = None
                for each in done:
                    error = each.exception()
                    if error is None and winner is None:
                        winner = each.result()
                    elif error is None:
                        each.result()[0].close()
                    elif isinstance(error, OSError):
                        last = Failed(said(error))
                    else:
                        raise error
                if winner is not None:
                    return winner
    except TimeoutError:
        last = Failed("no answer in time")
    finally:
        await _give_up(attempts)
    raise last


def _begun(address: IPAddress, port: int) -> _Attempt:
    attempt = asyncio.create_task(_one(address, port))
    _attempts.add(attempt)
    attempt.add_done_callback(_attempts.discard)
    return attempt


async def _give_up(attempts: Sequence[_Attempt]) -> None:
    for each in attempts:
        each.cancel()
    if attempts:
        await asyncio.wait(attempts)
    for each in attempts:
        if not each.cancelled() and each.exception() is None:
            each.result()[0].close()


async def _one(address: IPAddress, port: int) -> tuple[socket.socket, IPAddress]:
    sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock, address


async def dial_unix(path: Path) -> socket.socket:
    """A connection to a process of ours. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
