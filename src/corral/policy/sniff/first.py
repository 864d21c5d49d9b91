"""Which protocol the first bytes are."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["tls", "http", "other"]

MAX_LINE = 1 << 13  # bytes of what may become a request line; servers take no more either

# A request line (RFC 9112 3), also after the empty lines that servers skip, with any blank that one
# may take for a space. A line without a version is another protocol's: SMTP and Redis speak so.
# Possessive, so that blanks without end are not tried in a million ways.
_REQUEST = re.compile(rb"[\r\n]*+[!-~]{1,32}+[ \t\v\f]++[^\r\n]*[ \t\v\f]HTTP/[0-9]")
_MAYBE = re.compile(rb"[\r\n]*+(?:[A-Za-z-]{1,32}+(?:[ \t\v\f]++[ -~\t\v\f\x80-\xff]*+)?)?")


def looks_like(data: bytes) -> Kind | None:
    """What the first bytes of a client are, or None while that cannot be said yet."""
    if not data:
        return None
    if data[0] == 0x16:  # a handshake record, RFC 8446 5.1
        return "tls" if len(data) > 1 and data[1] == 3 else (None if len(data) == 1 else "other")
    if _REQUEST.match(data):
        # HTTP/2's preface (RFC 9113 3.4) only starts as a request does.
        return "other" if data.lstrip(b"\r\n").startswith(b"PRI ") else "http"
    return None if len(data) < MAX_LINE and _MAYBE.fullmatch(data) else "other"
