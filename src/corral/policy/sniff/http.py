"""One request of plain HTTP/1, read by h11 and written anew: what was checked is what is sent.

A second request on a connection could be for another host, and two parsers that disagree about
where the first one ends make one request into two (RFC 9112 11.2). So a connection carries one
request, its framing is ours, the server is asked to close, and what follows is dropped.
"""

from __future__ import annotations

import h11

from ..names import BadName, Host, parse, split_port
from .refused import Refused

MAX_HEAD = 1 << 16  # bytes of a request's line and fields
HTTP_PORT = 80

# Of one connection, and so not passed on, RFC 9110 7.6.1; and how a client asks for more than one.
_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"}
_UPGRADE = b"websocket"  # not h2c, which could ask for other hosts; nor connect-udp and the like

Headers = list[tuple[bytes, bytes]]


class HttpRequest:
    """A client's bytes in, the one request that goes to the server out.

    When the request asks to go on as a web socket, the client waits until the server has answered;
    if it agrees, all that follows is passed on, and else dropped, as it is after other requests.
    """

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._port = port
        self._in = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._out = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._complete = False
        self._upgrade = False
        self._open = False
        self.started = False
        self.waiting = False

    def feed(self, data: bytes) -> bytes:
        """What of it may be passed on. Raises Refused."""
        if self._open:
            held = self._in.trailing_data[0] if self._upgrade else b""
            self._upgrade = False
            return bytes(held) + data
        if not data or (self._complete and not self.waiting):
            return b""
        try:
            self._in.receive_data(data)
            return b"" if self.waiting else self._pass_on()
        except h11.ProtocolError as error:
            raise Refused("not HTTP") from error

    @property
    def holding(self) -> bool:
        """Whether something waits for the server's answer."""
        return self.waiting and bool(self._in.trailing_data[0])

    def server(self, data: bytes) -> None:
        """What the server sends, in order; `waiting` may be over then."""
        if not self._upgrade or self._open:
            return
        agrees = self._agrees(data)
        if agrees is not None:
            self.waiting, self._open, self._upgrade = False, agrees, agrees

    def _pass_on(self) -> bytes:
        passed = bytearray()
        while not self._complete:
            event = self._in.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                break
            old = False
            if isinstance(event, h11.Request):
                old = event.http_version == b"1.0"
                event = self._checked(event)
                self.started = True
            elif isinstance(event, h11.EndOfMessage):
                self._complete = True
                self.waiting = self._upgrade
            elif not isinstance(event, h11.Data):
                break
            said = self._out.send(event) or b""
            # h11 speaks 1.1 only; to a client of 1.0 a server must not answer as to one of 1.1.
            passed += said.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1) if old else said
        return bytes(passed)

    def _checked(self, request: h11.Request) -> h11.Request:
        target = bytes(request.target)
        if request.method == b"CONNECT":
            raise Refused("HTTP CONNECT")
        if not target.startswith(b"/") and not (target == b"*" and request.method == b"OPTIONS"):
            raise Refused("HTTP with a whole URL")
        fields = list(request.headers.raw_items())
        names = [bytes(name).lower() for name, _ in fields]
        if names.count(b"host") != 1:
            raise Refused("HTTP without a host")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Refused("HTTP with two lengths")
        old = request.http_version == b"1.0"
        if (old and b"transfer-encoding" in names) or not (old or request.http_version == b"1.1"):
            raise Refused("not HTTP")
        self._check_host(bytes(fields[names.index(b"host")][1]))
        return self._rewritten(request, fields, names)

    def _check_host(self, value: bytes) -> None:
        try:
            text, port = split_port(value.decode("ascii"))
            said = parse(text)
        except (UnicodeDecodeError, BadName) as error:
            raise Refused("the HTTP host is not a name") from error
        if said != self._host or (HTTP_PORT if port is None else port) != self._port:
            shown = said.text[:100] if said != self._host else f"port {port or HTTP_PORT}"
            raise Refused(f"the HTTP host is another one: {shown}")

    def _rewritten(
        self, request: h11.Request, fields: list[tuple[bytes, bytes]], names: list[bytes]
    ) -> h11.Request:
        asked = [
            value for (_, value), name in zip(fields, names, strict=True) if name == b"upgrade"
        ]
        named = {
            token.strip().lower()
            for (_, value), name in zip(fields, names, strict=True)
            if name == b"connection"
            for token in bytes(value).split(b",")
        }
        # What `Connection` names is of this connection too, but a client may not unsay these.
        dropped = _HOP | (named - {b"host", b"content-length", b"transfer-encoding"})
        kept: Headers = [
            (bytes(name), bytes(value))
            for (name, value), lower in zip(fields, names, strict=True)
            if lower not in dropped
        ]
        self._upgrade = b"upgrade" in named and [each.lower() for each in asked] == [_UPGRADE]
        if self._upgrade:
            kept += [(b"Connection", b"Upgrade"), (b"Upgrade", asked[0])]
        else:
            kept.append((b"Connection", b"close"))
        return h11.Request(method=request.method, target=request.target, headers=kept)

    def _agrees(self, data: bytes) -> bool | None:
        try:
            self._out.receive_data(data)
            while True:
                event = self._out.next_event()
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return True
                else:
                    return None if event is h11.NEED_DATA else False
        except h11.ProtocolError:
            return False


def refusal_text(name: str, port: int, reason: str, hint: str) -> bytes:
    """An answer to plain HTTP, and to a request of it on a port for TLS: 403, and why."""
    text = f"corral: this sandbox may not connect to {name}, port {port}: {reason}.\n{hint}\n"
    body = text.encode("ascii", "backslashreplace")
    head = (
        "HTTP/1.1 403 Forbidden\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        "Cache-Control: no-store\r\n\r\n"
    )
    return head.encode() + body
