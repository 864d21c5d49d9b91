"""A network for jails that have no device for one: names, listeners, and ways in and out.

In an agent's network namespace all addresses that it may dial are local (`netlink`). A name server
there gives every name an address of its own; a listener on each port of the policy gets what is
sent to any of them, and learns from getsockname(2) which it was, and so the name. The connection
then travels as a stream to the host, which decides (`forwarder`).

What an agent can make us hold is bounded for each agent: names, connections, connections to the
name server, and what is done for it in one turn of the loop.
"""

from __future__ import annotations

import errno
import socket

from . import names, netlink, relay
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop

_DNS_PORT = 53
MAX_DNS_CONNECTIONS = 16
PER_TURN = 16  # connections taken, or questions answered, before others have their turn
BACKLOG = 128


class Network:
    """One agent's. accepted: gets each connection of its programs, with a name and a port."""

    def __init__(
        self,
        loop: Loop,
        setup: dict[str, Any],
        accepted: Callable[[socket.socket, str, int], None],
    ) -> None:
        """To be made in the agent's network namespace. Raises OSError.

        setup: ports, networks (that are made local, beside names.RANGE).
        """
        self._loop = loop
        self._accepted = accepted
        self._table = names.Table(names.FIRST, names.LAST)
        self._clients: dict[int, _DnsClient] = {}
        self._sockets: list[socket.socket] = []
        self._listeners: list[socket.socket] = []
        self._accepting = False
        netlink.make_local([names.RANGE, *setup["networks"]])
        questions = self._bound(socket.AF_INET, socket.SOCK_DGRAM, names.NAME_SERVER, _DNS_PORT)
        loop.watch(questions.fileno(), READ, lambda _events: self._asked(questions))
        server = self._bound(socket.AF_INET, socket.SOCK_STREAM, names.NAME_SERVER, _DNS_PORT)
        server.listen(MAX_DNS_CONNECTIONS)
        loop.watch(server.fileno(), READ, lambda _events: self._client(server))
        families = [(socket.AF_INET, "0.0.0.0")]  # noqa: S104 - of the jail's loopback only
        if any(":" in network for network in setup["networks"]) and socket.has_ipv6:
            families.append((socket.AF_INET6, "::"))
        for family, address in families:
            for port in setup["ports"]:
                try:
                    listener = self._bound(family, socket.SOCK_STREAM, address, port)
                except OSError as error:
                    if family == socket.AF_INET6 and error.errno == errno.EAFNOSUPPORT:
                        break  # this kernel has none
                    raise
                listener.listen(BACKLOG)
                self._listeners.append(listener)
        self.accept(True)

    def _bound(self, family: int, kind: int, address: str, port: int) -> socket.socket:
        made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._sockets.append(made)
        if kind == socket.SOCK_STREAM:  # for datagrams it would let the agent's own share the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The name server's port may be one of the policy's, too; only our own sockets share one.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
        return made

    def accept(self, wanted: bool) -> None:
        """Take connections, or leave them waiting where they are."""
        if wanted != self._accepting:
            self._accepting = wanted
            for listener in self._listeners:
                if wanted:
                    self._loop.watch(listener.fileno(), READ, self._taker(listener))
                else:
                    self._loop.forget(listener.fileno())

    def close(self) -> None:
        """The agent is gone."""
        for client in list(self._clients.values()):
            client.close()
        for each in self._sockets:
            self._loop.forget(each.fileno())
            each.close()

    # Connections

    def _taker(self, listener: socket.socket) -> Callable[[int], None]:
        return lambda _events: self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        for _ in range(PER_TURN):
            if not self._accepting:
                return
            try:
                connection, _peer = listener.accept()
            except OSError:  # none is left, or it is gone already, or we can hold no more now
                return
            address, port = connection.getsockname()[:2]
            name = self._name(address)
            if name is None:
                relay.refuse(connection)
            else:
                self._accepted(connection, name, port)

    def _name(self, address: str) -> str | None:
        """What was dialled: a name, or an address that the policy has made local."""
        if ":" in address:
            return None if address == "::1" else address
        packed = socket.inet_aton(address)
        if packed[0] == 127:
            return None
        number = int.from_bytes(packed, "big")
        if number & 0xFFFE0000 == names.FIRST & 0xFFFE0000:
            return self._table.name(number)
        return address

    # Names

    def answer(self, question: bytes) -> bytes | None:
        """What the name server says."""
        return names.answer(question, lambda name: self._table.address(name).to_bytes(4, "big"))

    def _asked(self, server: socket.socket) -> None:
        for _ in range(PER_TURN):
            try:
                question, asker = server.recvfrom(names.MAX_QUERY)
                answer = self.answer(question)
                if answer is not None:
                    server.sendto(answer, asker)
            except BlockingIOError:
                return
            except OSError:  # who asked is gone
                continue

    def _client(self, server: socket.socket) -> None:
        try:
            connection, _peer = server.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_DNS_CONNECTIONS:  # the oldest has waited long enough
            next(iter(self._clients.values())).close()
        fd = connection.fileno()
        self._clients[fd] = _DnsClient(self._loop, self, connection, self._clients)


class _DnsClient:
    """One connection to the name server: questions with their lengths before them (RFC 7766)."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        connection: socket.socket,
        clients: dict[int, _DnsClient],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._network = network
        self._socket = connection
        self._clients = clients
        self._read = bytearray()
        self._unsent = bytearray()
        loop.watch(connection.fileno(), READ, self._ready)

    def _ready(self, events: int) -> None:
        """One question, or what is left of an answer; who does not read is not read either."""
        try:
            if not self._unsent:
                data = self._socket.recv(names.MAX_QUERY)
                if not data:
                    return self.close()
                self._read += data
                if not self._answered():
                    return self.close()
            if self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        interest = WRITE if self._unsent else READ
        return self._loop.watch(self._socket.fileno(), interest, self._ready)

    def _answered(self) -> bool:
        """Answer what has come; False for what is no question."""
        while len(self._read) >= 2:
            size = int.from_bytes(self._read[:2], "big")
            if size > names.MAX_QUERY:
                return False
            if len(self._read) < size + 2:
                break
            answer = self._network.answer(bytes(self._read[2 : size + 2]))
            del self._read[: size + 2]
            if answer is None:
                return False
            self._unsent += len(answer).to_bytes(2, "big") + answer
        return True

    def close(self) -> None:
        """Be done with it."""
        fd = self._socket.fileno()
        self._loop.forget(fd)
        self._clients.pop(fd, None)
        self._socket.close()
