"""ClientHellos: real ones of OpenSSL, and ones put together by hand."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterable

from corral.policy.sniff.tls import RETRY

SERVER_NAME, ECH = 0, 0xFE0D


def openssl(name: str | None, *, newest: ssl.TLSVersion | None = None) -> bytes:
    """What OpenSSL says first to a server of this name."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if newest is not None:
        context.maximum_version = newest
    else:
        context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">H", kind) + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + vector(2, name) for name in names)
    return extension(SERVER_NAME, vector(2, entries))


def hello(*extensions: bytes, version: bytes = b"\3\3", tail: bytes = b"") -> bytes:
    """A ClientHello as a handshake message; without extensions there is no such vector."""
    body = version + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x13\x01\x13\x02") + b"\1\0"
    if extensions:
        body += vector(2, b"".join(extensions))
    body += tail
    return b"\1" + vector(3, body)


def records(message: bytes, sizes: Iterable[int] = (), kind: int = 22) -> bytes:
    """The message in plaintext records of these sizes, the rest in one."""
    out = b""
    for size in sizes:
        if not message:
            break
        out += bytes([kind, 3, 1]) + vector(2, message[:size])
        message = message[size:]
    return out + (bytes([kind, 3, 1]) + vector(2, message) if message else b"")


def plain(name: str) -> bytes:
    """A whole ClientHello for a name, in one record."""
    return records(hello(server_name(name.encode())))


def server_hello(*, retry: bool = False) -> bytes:
    """A ServerHello, as far as anybody looks."""
    body = b"\3\3" + (RETRY if retry else bytes(range(32))) + vector(1, b"") + b"\x13\x01\0"
    return records(b"\2" + vector(3, body))
