"""First bytes that a client sends: ClientHellos made by hand, requests of plain HTTP."""

from __future__ import annotations

import struct

SERVER_NAME, ECH = 0, 0xFE0D  # TLS extension types: RFC 6066, RFC 9849


def client_hello(*names: str | bytes, further: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A TLS record with a ClientHello (RFC 8446, 4.1.2) that has these server names.

    further: extensions, as (type, content).
    """
    extensions = b""
    if names:
        entries = b"".join(
            b"\0" + _sized(2, name if isinstance(name, bytes) else name.encode()) for name in names
        )
        extensions += struct.pack(">H", SERVER_NAME) + _sized(2, _sized(2, entries))
    for kind, content in (
        (43, b"\x04\x03\x04\x03\x03"),  # supported versions: 1.3, 1.2
        (10, b"\0\x02\0\x1d"),  # groups: x25519
        (13, b"\0\x02\x04\x03"),  # signatures
        *further,
    ):
        extensions += struct.pack(">H", kind) + _sized(2, content)
    body = b"\x03\x03" + bytes(range(32)) + _sized(1, bytes(32))
    body += _sized(2, b"\x13\x01\xc0\x2f") + b"\x01\0" + _sized(2, extensions)
    return b"\x16\x03\x01" + _sized(2, b"\x01" + len(body).to_bytes(3, "big") + body)


def request(host: str, target: str = "/", method: str = "GET", *lines: str) -> bytes:
    """A request of plain HTTP."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def _sized(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data
