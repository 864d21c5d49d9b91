"""All agents' connections, in and out, as streams of the channel."""

from __future__ import annotations

import errno
import os
import resource
import socket

from . import relay, wire
from .flows import MAX_PENDING, Share
from .loop import WRITE
from .network import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .agent import Agent
    from .loop import Loop

OPEN_FILES = 1 << 14  # of this process; what agents may have of them is bounded for each
DEFAULT_CONNECTIONS = 256  # of an agent without a network, of which only the host opens any
RPC_FAILED = -32000
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class _Ways:
    """What one agent has open. most: connections at once. network: None without names.

    share: of the carrier, the agent's.
    """

    __slots__ = ("count", "most", "network", "share")

    def __init__(self, most: int) -> None:
        self.count = 0
        self.most = most
        self.share = Share()
        self.network: Network | None = None


class Forwarder:
    """All agents' connections, in and out, as streams of the channel."""

    def __init__(self, loop: Loop, channel: wire.Connection) -> None:
        self._loop = loop
        self._channel = channel
        self._ways: dict[int, _Ways] = {}
        self._relays: dict[int, tuple[int, relay.Relay]] = {}  # by stream, with the agent's number
        self._dials: dict[int, _Dial] = {}
        self._next = 1  # odd numbers are ours

    def begin(self, agent: Agent, setup: dict[str, Any]) -> None:
        """Give an agent a network. setup: connections (at once), and as `Network` says.

        Raises OSError.
        """
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        number = agent.number
        ways = self._of(number)
        ways.most = setup["connections"]
        ways.share = agent.share

        def accepted(connection: socket.socket, name: str, port: int) -> None:
            self._accepted(number, connection, name, port)

        ways.network = agent.in_network(lambda: Network(self._loop, setup, accepted))

    def end(self, number: int) -> None:
        """An agent is gone."""
        ways = self._ways.pop(number, None)
        if ways is not None and ways.network is not None:
            ways.network.close()
            ways.network = None
        self._drop(number, "the agent has ended")

    def attach(self, channel: wire.Connection) -> None:
        """The host is another one: what was connected through the old one is not any more."""
        self._drop(None, "")
        self._channel = channel

    def _drop(self, number: int | None, reason: str) -> None:
        """End the connections of an agent, or all."""
        for dial in [each for each in self._dials.values() if number in (None, each.number)]:
            dial.fail(errno.ECONNRESET)
        for owner, each in list(self._relays.values()):
            if number in (None, owner):
                each.abort(reason)

    def _of(self, number: int) -> _Ways:
        if number not in self._ways:
            self._ways[number] = _Ways(DEFAULT_CONNECTIONS)
        return self._ways[number]

    # The channel

    def handle(self, event: wire.Event) -> bool:
        """Something happened on a stream; False when it is none of ours."""
        assert not isinstance(event, wire.Message)
        dial = self._dials.get(event.stream)
        if dial is not None:
            if isinstance(event, wire.Reset):
                dial.fail(errno.ECONNABORTED)
            return True  # the host sends nothing before it has its answer
        if event.stream not in self._relays:
            return event.stream % 2 == 1
        each = self._relays[event.stream][1]
        if isinstance(event, wire.Data):
            each.data(event.data)
        elif isinstance(event, wire.Ended):
            each.end()
        elif isinstance(event, wire.Reset):
            each.abort()
        else:
            each.resume()
        return True

    def room(self) -> None:
        """The carrier has taken what was queued: those that waited for that go on."""
        for _number, each in list(self._relays.values()):
            if each.crowded:
                each.resume()
        for ways in self._ways.values():
            self._balance(ways)

    def _balance(self, ways: _Ways) -> None:
        if ways.network is not None:
            crowded = self._channel.pending_output > MAX_PENDING
            ways.network.accept(ways.count < ways.most and not crowded)

    # Connections

    def _accepted(self, number: int, connection: socket.socket, name: str, port: int) -> None:
        stream = self._next
        try:
            self._channel.open(stream)
        except wire.StreamError:  # too many are open: of all agents together, or not yet answered
            return relay.refuse(connection)
        self._next += 2
        params = {"stream": stream, "agent": number, "name": name, "port": port}
        self._channel.send_message(wire.notification("connect", params))
        return self._join(number, connection, stream)

    def _join(self, number: int, connection: socket.socket, stream: int) -> None:
        ways = self._of(number)
        ways.count += 1

        def ended() -> None:
            self._relays.pop(stream, None)
            ways.count -= 1
            self._balance(ways)

        self._relays[stream] = (
            number,
            relay.Relay(self._loop, self._channel, connection, stream, ended, ways.share),
        )
        self._balance(ways)

    def dial(self, request: int, params: dict[str, Any], agent: Agent) -> None:
        """Connect a stream of the host's to a port of an agent's loopback; answered when it is.

        Raises OSError, wire.StreamError.
        """
        ways = self._of(agent.number)
        ways.share = agent.share
        waiting = sum(dial.number == agent.number for dial in self._dials.values())
        if ways.count + waiting >= ways.most:
            raise OSError(errno.EMFILE, "too many connections are open")
        stream = params["stream"]
        self._channel.open(stream)

        def over(connection: socket.socket | None, number: int) -> None:
            del self._dials[stream]
            if connection is not None:
                self._channel.send_message(wire.response(request, {}))
                self._join(agent.number, connection, stream)
            else:
                self._channel.reset(stream, "")
                text = os.strerror(number)
                body = wire.error(request, RPC_FAILED, text, {"errno": number})
                self._channel.send_message(body)

        self._dials[stream] = _Dial(self._loop, agent, params["port"], over)
        self._dials[stream].next()


class _Dial:
    """A connection to an agent's loopback that is being made.

    over: called once, with the connection, or None and why there is none.
    """

    def __init__(
        self,
        loop: Loop,
        agent: Agent,
        port: int,
        over: Callable[[socket.socket | None, int], None],
    ) -> None:
        self._loop = loop
        self._agent = agent
        self.number = agent.number
        self._port = port
        self._over = over
        self._left = list(_LOOPBACKS)
        self._errno = errno.ECONNREFUSED
        self._socket: socket.socket | None = None

    def next(self) -> None:
        """Try the next address; the first error is the one that counts."""
        while self._left:
            family, address = self._left.pop(0)
            try:
                self._socket = made = self._agent.in_network(lambda: _new(family))  # noqa: B023
                number = made.connect_ex((address, self._port))
            except OSError as error:
                number = error.errno or errno.EIO
            if not number:
                return self._connected()
            if number == errno.EINPROGRESS and self._socket is not None:
                fd = self._socket.fileno()
                return self._loop.watch(fd, WRITE, lambda _events: self._ready())
            self._failed(number)
        return self._over(None, self._errno)

    def _ready(self) -> None:
        assert self._socket is not None
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._failed(number)
            self.next()
            return
        try:
            self._socket.getpeername()
        except OSError:  # not yet: the loop may call once too often
            return
        self._connected()

    def _connected(self) -> None:
        made, self._socket = self._socket, None
        assert made is not None
        self._loop.forget(made.fileno())
        self._over(made, 0)

    def _failed(self, number: int) -> None:
        if len(self._left) == len(_LOOPBACKS) - 1:
            self._errno = number
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def fail(self, number: int) -> None:
        """Give it up."""
        self._left = []
        self._failed(number)
        self._over(None, number)


def _new(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
