"""Which protocol the first bytes are."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["tls", "http", "other"]

MOST = 24  # bytes that are enough to tell; the longest registered method has 16

# A method and a space (RFC 9110 9.1, RFC 9112 3), also after the empty lines that servers skip. Not
# HTTP/2's preface "PRI * HTTP/2.0" (RFC 9113 3.4), which only starts what looks like a request.
_METHOD = re.compile(rb"(?:\r?\n)*[A-Za-z][A-Za-z-]{1,20}[ \t]+[/*A-Za-z]")
_MAYBE_METHOD = re.compile(rb"(?:\r?\n)*(?:[A-Za-z][A-Za-z-]{0,20}(?:[ \t]+)?)?\r?")


def looks_like(data: bytes) -> Kind | None:
    """What the first bytes of a client are, or None while that cannot be said yet."""
    if not data:
        return None
    if data[0] == 0x16:  # a handshake record, RFC 8446 5.1
        return "tls" if len(data) > 1 and data[1] == 3 else (None if len(data) == 1 else "other")
    if data.lstrip(b"\r\n").startswith(b"PRI "):
        return "other"
    if _METHOD.match(data):
        return "http"
    return None if len(data) < MOST and _MAYBE_METHOD.fullmatch(data) else "other"
