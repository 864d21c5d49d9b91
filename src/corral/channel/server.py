"""The other side of a Channel, for a server in this program: requests come in, answers go out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from corral.channel.channel import Channel
from corral.channel.stream import Stream
from corral.errors import ChannelError, CorralError
from corral_guest import wire


class ServedChannel(Channel):
    """One client's connection: it asks and names streams, we answer and notify.

    requests: called inside the read loop with each request; what it raises as a ValueError or
    CorralError ends this connection. Make it with `serve`.
    """

    def __init__(
        self,
        sock: socket.socket,
        handlers: Mapping[str, Callable[[dict[str, object]], None]],
        *,
        peer: str = "the client",
    ) -> None:
        super().__init__(sock, handlers, peer=peer)
        self._requests: Callable[[wire.Request], None] = _refuse

    @classmethod
    async def serve(
        cls, sock: socket.socket, requests: Callable[[wire.Request], None]
    ) -> ServedChannel:
        """Take over a connected socket."""
        sock.setblocking(False)
        channel = cls(sock, {})
        channel._requests = requests
        channel._loop.add_reader(sock, channel._read)
        return channel

    def register(self, number: int) -> Stream:
        """The stream that a request names; to be called inside the handler.

        Raises ChannelError unless it is a free even number.
        """
        if number % 2:
            raise ChannelError("the client named a stream by an odd number.")
        return self._register(number)

    def answer(self, number: int, result: object) -> None:
        """Answer a request; to a client that is gone, nothing."""
        self._say(wire.response(number, result))

    def refuse(self, number: int, code: int, message: str, data: dict[str, object]) -> None:
        """Answer a request with an error; to a client that is gone, nothing."""
        self._say(wire.error(number, code, message, data))

    def tell(self, method: str, params: Mapping[str, object]) -> None:
        """Send a notification; to a client that is gone, nothing."""
        self._say(wire.notification(method, dict(params)))

    def _say(self, body: dict[str, object]) -> None:
        if self.failure is None:
            self.connection.send_message(body)
            self.flush()

    async def written(self) -> None:
        """Wait until the socket has taken all that is queued, or the client is gone."""
        while self.failure is None and self.connection.pending_output:
            self.room_made.clear()
            await self.room_made.wait()

    def _dispatch_message(self, message: wire.Call) -> None:
        if not isinstance(message, wire.Request):
            raise wire.ProtocolError("a message that only a server sends")
        try:
            self._requests(message)
        except (ValueError, CorralError) as error:
            self._fail(ChannelError(f"the client's request is wrong: {error}"), error)


def _refuse(_request: wire.Request) -> None:
    raise ChannelError("nobody answers requests here.")
