"""Ports of the host that lead into a sandbox: listeners here, streams to the agent's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

import msgspec

from ..channel import Stream
from ..errors import CorralError, PortError
from ..events import Notice
from ..policy import Network, Publish

BACKLOG = 128
MAX_CONNECTIONS = 256  # of each port at once; more wait in the backlog
AGENT = 1  # whose loopback they lead to
_READ = 1 << 16
_PATIENCE = 1.0  # seconds, when this process has no descriptor left for a connection
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends RST

Dial = Callable[[int, int], Awaitable[Stream]]  # (agent, port)


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port that is published. address, port: on the host. guest_port: on the agent's loopback.

    connections: open now. received, sent: bytes, from the sandbox's point of view.
    """

    address: str
    port: int
    guest_port: int
    connections: int = 0
    received: int = 0
    sent: int = 0


class Publishing(Protocol):
    """What has ports: a `Sandbox`, or a client of a sandbox's keeper."""

    async def publish(self, publish: Publish) -> Port:
        """One more."""

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        """One fewer."""

    async def published(self) -> tuple[Port, ...]:
        """All of them."""


class Ports:
    """The published ports of one sandbox; use it as an async context manager.

    A port is bound, and clients may connect, from `bind` on; they are served from `serve` on.
    """

    def __init__(self, publish: Iterable[Publish] = ()) -> None:
        """Raises PortError."""
        self._listening: dict[tuple[str, int], _Listening] = {}
        self._dial: Dial | None = None
        try:
            for each in publish:
                self.bind(each)
        except PortError:
            for listening in self._listening.values():
                listening.sock.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._dial = None
        for key in list(self._listening):
            await self._listening.pop(key).aclose()

    def bind(self, publish: Publish) -> Port:
        """Publish one more. Raises PortError, in the words of who asked for it."""
        listening = _Listening(publish)
        self._listening[listening.port.address, listening.port.port] = listening
        if self._dial is not None:
            listening.serve(self._dial)
        return listening.port

    def chosen(self) -> list[Notice]:
        """Where those are for which any port was right."""
        return [
            Notice(
                level="info",
                message=f"port {each.port.guest_port} is at {shown(each.port)}",
            )
            for each in self._listening.values()
            if each.any_port
        ]

    def serve(self, dial: Dial) -> None:
        """The sandbox is up: connect who comes, and who has come."""
        self._dial = dial
        for listening in self._listening.values():
            listening.serve(dial)

    async def remove(self, port: int, address: str | None = None) -> Port:
        """Publish it no more; its connections are reset.

        address: of the host; None where only one has that port. Raises PortError.
        """
        found = [key for key in self._listening if key[1] == port and address in (None, key[0])]
        if not found:
            raise PortError(
                f"port {port} is not published.", hint="`corral port list NAME` shows which are."
            )
        if len(found) > 1:
            raise PortError(
                f"port {port} is published on several addresses.",
                hint="Say which: " + ", ".join(f"{each}:{port}" for each, _ in found),
            )
        listening = self._listening.pop(found[0])
        await listening.aclose()
        return listening.port

    def listed(self) -> tuple[Port, ...]:
        """Those that are published."""
        return tuple(self._listening[key].now() for key in sorted(self._listening))


class _Listening:
    """One port: its socket, and from `serve` on a task that accepts and one for each connection."""

    def __init__(self, publish: Publish) -> None:
        self.sock = _bound(publish)
        self.any_port = not publish.port
        self._task: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._received = self._sent = 0
        self.port = Port(
            address=publish.address,
            port=self.sock.getsockname()[1],
            guest_port=publish.guest_port,
        )

    def now(self) -> Port:
        return msgspec.structs.replace(
            self.port,
            connections=len(self._connections),
            received=self._received,
            sent=self._sent,
        )

    def serve(self, dial: Dial) -> None:
        name = f"published port {self.port.port}"
        self._task = asyncio.create_task(self._accept(dial), name=name)

    async def aclose(self) -> None:
        """Close it; who is connected sees a reset."""
        tasks = {*self._connections, *([self._task] if self._task else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.sock.close()

    async def _accept(self, dial: Dial) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _peer = await loop.sock_accept(self.sock)
            except OSError as error:
                self._room.release()
                if error.errno != errno.ECONNABORTED:  # there is no room for it now
                    await asyncio.sleep(_PATIENCE)  # as asyncio's own servers do
                continue
            task = asyncio.create_task(self._serve(connection, dial), name="published connection")
            self._connections.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a published connection failed", "exception": error, "task": task}
            )

    async def _serve(self, connection: socket.socket, dial: Dial) -> None:
        """One connection, from the dial to the end of both directions."""
        done = False
        connection.setblocking(False)
        try:
            async with await dial(AGENT, self.port.guest_port) as stream:
                await self._pump(connection, stream)
                done = True
        except (CorralError, OSError):
            pass  # one side is gone; the other sees a reset
        finally:
            if not done:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()

    async def _pump(self, connection: socket.socket, stream: Stream) -> None:
        """Both directions, each to its own end. Raises what ends one before that."""
        tasks = [
            asyncio.create_task(self._inwards(connection, stream)),
            asyncio.create_task(self._outwards(connection, stream)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _inwards(self, connection: socket.socket, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(connection, _READ):
            await stream.write(data)
            self._received += len(data)
        await stream.end()

    async def _outwards(self, connection: socket.socket, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while data := await stream.read(_READ):
            await loop.sock_sendall(connection, data)
            self._sent += len(data)
        connection.shutdown(socket.SHUT_WR)


def shown(port: Port) -> str:
    """Where it is, as in a URL."""
    return f"[{port.address}]:{port.port}" if ":" in port.address else f"{port.address}:{port.port}"


def any_ports(network: Network) -> Network:
    """The policy of a copy: its ports are others, since the original has those that it named."""
    publish = tuple(msgspec.structs.replace(each, port=0) for each in network.publish)
    return msgspec.structs.replace(network, publish=publish)


def _bound(publish: Publish) -> socket.socket:
    """A socket that listens there. Raises PortError."""
    family = socket.AF_INET6 if ":" in publish.address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _port_error(publish, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((publish.address, publish.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _port_error(publish, error) from error
    sock.setblocking(False)
    return sock


def _port_error(publish: Publish, error: OSError) -> PortError:
    where = f"port {publish.port} of {publish.address}"
    again = f"{publish.address}:0:{publish.guest_port}"
    match error.errno:
        case errno.EADDRINUSE:
            return PortError(
                f"{where} is in use.",
                hint=f"Publish another one, or any that is free: -p {again}",
            )
        case errno.EACCES | errno.EPERM:
            return PortError(
                f"{where} may be bound by root only.", hint="Publish one from 1024 on."
            )
        case errno.EAFNOSUPPORT:
            return PortError(f"{where} cannot be published: this machine has no IPv6.")
        case errno.EADDRNOTAVAIL:
            return PortError(
                f"{publish.address} is no address of this machine.",
                hint="127.0.0.1 is for this machine only, 0.0.0.0 for every network it is in.",
            )
    return PortError(f"{where} cannot be published: {os.strerror(error.errno or 0)}.")
