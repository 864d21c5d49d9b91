"""The start of TLS, read as far as it is not encrypted: the name that a client asks for.

RFC 8446 and 5246 for records and ClientHello, RFC 6066 3 for the server's name, RFC 9849 for
Encrypted ClientHello. What the client sent is passed on as it is; nothing is put together anew.
"""

from __future__ import annotations

from ..names import BadName, Host, parse
from .refused import Refused

MAX_HELLO = 1 << 16  # bytes of records that may come before the ClientHello is whole
_MAX_RECORD = 1 << 14
_HANDSHAKE, _CLIENT_HELLO, _SERVER_HELLO = 22, 1, 2
_SERVER_NAME = 0
_HIDDEN = {0xFE0D: "encrypted ClientHello", 0xFFCE: "encrypted server name"}  # ECH, and its draft

# The random value of a ServerHello that is a HelloRetryRequest, RFC 8446 4.1.3.
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_ENOUGH = 5 + 4 + 2 + 32  # bytes of a ServerHello that tell it: record, message, version, random
_ALERT = 5 + 2  # bytes of an alert
_BETWEEN = (20, 21, 23)  # change cipher spec, alert, application data


class TlsStart:
    """A client's bytes in, those that may go to the server out.

    The ClientHello is held until it is whole and for the right host. Then the client waits until
    the server has answered: with a HelloRetryRequest it makes the client send another one, which
    could name another host, so that one is looked at as well. After it all is passed on.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._hello: _Hello | None = _Hello()
        self._held = b""  # what the client said after its ClientHello, before the server did
        self._answer = bytearray()
        self._open = False
        self.started = False
        self.waiting = False

    def feed(self, data: bytes) -> bytes:
        """What of it may be passed on. Raises Refused."""
        if self._held:
            data, self._held = self._held + data, b""
        if self._open:
            return data
        if self.waiting:
            self._held = data
            return b""
        passed = bytearray()
        if self.started:
            data = self._skip(data, passed)
        if self._hello is not None and data:
            whole = self._hello.feed(data)
            if whole is not None:
                body, raw, rest = whole
                check_name(server_names(body), self._host)
                passed += raw
                self._said_hello(rest, passed)
        return bytes(passed)

    def _skip(self, data: bytes, passed: bytearray) -> bytes:
        """Before a second ClientHello: a compatibility record, an alert, early data (RFC 8446 D.4).

        Returns what is for the ClientHello.
        """
        if self._hello is not None and self._hello.begun:
            return data
        while data:
            if data[0] == _HANDSHAKE:
                return data
            if data[0] not in _BETWEEN:
                raise Refused("not TLS")
            size = 5 + int.from_bytes(data[3:5], "big")
            if len(data) < 5 or len(data) < size:
                self._held = data
                return b""
            if data[1] != 3 or size > 5 + _MAX_RECORD + 256:
                raise Refused("not TLS")
            passed += data[:size]
            data = data[size:]
        return b""

    def _said_hello(self, rest: bytes, passed: bytearray) -> None:
        self._hello = None
        if self.started:
            self._open = True
            passed += rest
        else:
            self.started = self.waiting = True
            self._held = rest

    @property
    def holding(self) -> bool:
        """Whether something waits for the server's answer."""
        return self.waiting and bool(self._held)

    def server(self, data: bytes) -> None:
        """What the server sends, in order; `waiting` may be over then."""
        if not self.waiting or not data:
            return
        self._answer += data
        answer = self._answer
        while len(answer) >= _ALERT and answer[0] == 21:  # a warning may come before the answer
            del answer[:_ALERT]
        if not answer or answer[0] == 21:
            return
        if answer[0] != _HANDSHAKE:
            self.waiting, self._open = False, True
            self._hello = None
        elif len(answer) >= _ENOUGH:
            self.waiting = False
            # A server that splits these few bytes over records is taken to ask for another one.
            whole = int.from_bytes(answer[3:5], "big") >= _ENOUGH - 5
            if not whole or (answer[5] == _SERVER_HELLO and answer[11:_ENOUGH] == RETRY):
                self._hello = _Hello()
            else:
                self._open = True


class _Hello:
    """A ClientHello in plaintext records, whole or in pieces."""

    def __init__(self) -> None:
        self._raw = bytearray()  # all that was fed
        self._at = 0  # where in it the next record begins
        self._message = bytearray()

    @property
    def begun(self) -> bool:
        """Whether anything was fed."""
        return bool(self._raw)

    def feed(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Its body, its records and what came after; None until it is whole. Raises Refused."""
        raw = self._raw
        raw += data
        while len(raw) > self._at:
            header = bytes(raw[self._at : self._at + 5])
            if header[0] != _HANDSHAKE or header[1:2] not in (b"", b"\x03"):
                raise Refused("not TLS")
            size = int.from_bytes(header[3:5], "big")
            if len(header) == 5 and not 0 < size <= _MAX_RECORD:
                raise Refused("not TLS")
            end = self._at + 5 + size
            if len(header) < 5 or len(raw) < end:
                break
            self._message += raw[self._at + 5 : end]
            self._at = end
            if self._is_whole():
                return bytes(self._message[4:]), bytes(raw[:end]), bytes(raw[end:])
        if len(raw) > MAX_HELLO:
            raise Refused("a ClientHello without end")
        return None

    def _is_whole(self) -> bool:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise Refused("not TLS")
        size = 4 + int.from_bytes(message[1:4], "big")
        if len(message) < 4 or len(message) < size:
            return False
        if len(message) > size:
            raise Refused("more than a ClientHello")
        return True


def check_name(found: list[bytes] | None, host: Host) -> None:
    """Raises Refused unless the server names of a ClientHello are this host's name, alone.

    found: None without the extension. For an address there is none (RFC 6066 3 has no way to say
    one).
    """
    if host.address is not None:
        if found is not None:
            raise Refused("the TLS name is not the address that was asked for")
        return
    if found is None:
        raise Refused("TLS without a server name")
    if len(found) != 1:
        raise Refused("TLS with several server names")
    try:
        text = found[0].decode("ascii")
        said = parse(text)
    except (UnicodeDecodeError, BadName) as error:
        raise Refused("the TLS name is not a name") from error
    if said != host or text.lower() != host.text:
        raise Refused(f"the TLS name is another one: {said.text[:100]}")


def server_names(body: bytes) -> list[bytes] | None:
    """The server names in the body of a ClientHello; None when it has no such extension.

    Raises Refused when it is malformed or hides its name.
    """
    reader = _Reader(body)
    if reader.number(2) >> 8 != 3:
        raise Refused("not TLS")
    reader.take(32)  # random
    if len(reader.vector(1)) > 32:
        raise Refused("a malformed ClientHello")  # session id
    suites = reader.vector(2)
    if not suites or len(suites) % 2:
        raise Refused("a malformed ClientHello")
    if not reader.vector(1):
        raise Refused("a malformed ClientHello")  # compression methods
    if reader.at_end():
        return None
    extensions = _Reader(reader.vector(2))
    reader.finish()
    seen: set[int] = set()
    found: list[bytes] | None = None
    while not extensions.at_end():
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind in seen:
            raise Refused("a malformed ClientHello")
        seen.add(kind)
        if kind in _HIDDEN:
            raise Refused(f"TLS with {_HIDDEN[kind]}")
        if kind == _SERVER_NAME:
            found = _names(content)
    return found


def _names(content: bytes) -> list[bytes]:
    outer = _Reader(content)
    entries = _Reader(outer.vector(2))
    outer.finish()
    found = []
    while not entries.at_end():
        if entries.number(1) != 0:
            raise Refused("TLS with a server name of another kind")
        found.append(entries.vector(2))
    return found


class _Reader:
    """Numbers and vectors of RFC 8446 3, off the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Refused("a malformed ClientHello")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def finish(self) -> None:
        if not self.at_end():
            raise Refused("a malformed ClientHello")
