"""Placeholder to secret in one header, and secret to placeholder in all that comes back. Pure.

An answer arrives in pieces, which `corral.gateway.redact.Redactor` puts together.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from collections import OrderedDict

from ..redact import Tail

MOST_CREDENTIALS = 64  # that were sent as Basic; the oldest is forgotten
_BASIC = b"basic "


def inject(value: bytes, placeholder: bytes, secret: bytes) -> bytes | None:
    """A header's value with the secret in place of the placeholder; None where that is not.

    Basic credentials (RFC 7617) are decoded for it: git sends a token so.
    """
    if placeholder in value:
        return value.replace(placeholder, secret)
    decoded = basic_credentials(value)
    if decoded is None or placeholder not in decoded:
        return None
    encoded = base64.b64encode(decoded.replace(placeholder, secret))
    return value[: len(_BASIC)] + encoded


def basic_credentials(value: bytes) -> bytes | None:
    """What is encoded in a header's value of the scheme Basic; None where it is another."""
    if value[: len(_BASIC)].lower() != _BASIC:
        return None
    encoded = value[len(_BASIC) :].strip()
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return None


def mentions(value: bytes, placeholder: bytes) -> bool:
    """Whether a header's value holds the placeholder, in Basic credentials too."""
    return placeholder in value or placeholder in (basic_credentials(value) or b"")


class Needles:
    """What must not go back: every secret in the forms that servers write it in.

    Plain, percent-encoded, as JSON writes it, hexadecimal, and within base64 at each of the three
    ways it can lie there.
    """

    def __init__(self) -> None:
        self._fixed: dict[bytes, bytes] = {}
        self._credentials: OrderedDict[bytes, bytes] = OrderedDict()
        self._tail = Tail()

    def add(self, secret: bytes, placeholder: bytes) -> None:
        """Look for a secret from now on. placeholder: of the same length."""
        forms = _forms(secret)
        for find, put in zip(forms, _forms(placeholder), strict=True):
            if find not in self._fixed and find != put:
                self._fixed[find] = put[: len(find)].ljust(len(find), b"x")
        self._tail.add(secret, forms)

    def add_credentials(self, sent: bytes, given: bytes) -> None:
        """Basic credentials that went out with a secret, and what the sandbox had written."""
        if len(sent) == len(given) and sent != given:
            self._credentials.pop(sent, None)
            self._credentials[sent] = given
            if len(self._credentials) > MOST_CREDENTIALS:
                self._credentials.popitem(last=False)

    def clean(self, data: bytes) -> bytes:
        """The same bytes with no secret that lies in them whole."""
        for table in (self._credentials, self._fixed):  # the longer ones first
            for find, put in table.items():
                if find in data:
                    data = data.replace(find, put)
        return data

    def begun(self, data: bytes) -> int:
        """How many bytes at the end could be the beginning of something looked for."""
        longest = max(map(len, self._credentials), default=1)
        return self._tail.length(data, longest=longest)


def _forms(secret: bytes) -> list[bytes]:
    text = secret.decode("latin-1")
    forms = [
        secret,
        urllib.parse.quote(text, safe="").encode(),
        json.dumps(text)[1:-1].encode(),
        secret.hex().encode(),
        secret.hex().upper().encode(),
    ]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        # Only characters all of whose six bits are the secret's.
        first, last = -(-offset * 8 // 6), (offset + len(secret)) * 8 // 6
        inner = encoded[first:last]
        forms += [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]
    return forms


class Watcher:
    """Looks for a placeholder in a stream, across its pieces."""

    def __init__(self, placeholders: dict[str, bytes]) -> None:
        self._wanted = dict(placeholders)
        self._keep = max(map(len, placeholders.values()), default=1) - 1
        self._tail = b""

    def feed(self, data: bytes) -> list[str]:
        """The names of those that are there for the first time."""
        window = self._tail + data
        found = [name for name, text in self._wanted.items() if text in window]
        for name in found:
            del self._wanted[name]
        self._tail = window[-self._keep :] if self._keep else b""
        return found
