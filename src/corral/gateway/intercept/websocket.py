"""A WebSocket's frames from a server, without secrets (RFC 6455, 5.2). Pure.

Lengths do not change, so only payloads are touched. At the end of a frame nothing is held back.
"""

from __future__ import annotations

from ..redact import Redactor
from .replace import Needles

_OPCODE, _MASKED, _LENGTH = 0x0F, 0x80, 0x7F
_CLOSE = 0x8  # from here on: control frames, whole by themselves


class FrameScrubber:
    """Bytes of a WebSocket connection as the server sends them."""

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._message = Redactor(needles)
        self._control = Redactor(needles)
        self._header = b""
        self._left = 0  # bytes of the payload that are still to come
        self._in_control = False

    def feed(self, data: bytes) -> bytes:
        """What may go on. A frame's header goes on with the first of its payload."""
        out = bytearray()
        while data:
            if not self._left:
                data = self._read_header(data, out)
                continue
            payload, data = data[: self._left], data[self._left :]
            self._left -= len(payload)
            scrubber = self._control if self._in_control else self._message
            out += scrubber.feed(payload)
            if not self._left:
                # Within a message of several frames the text goes on in the next frame, whose
                # header follows: what is held back here must go first.
                out += scrubber.end()
        return bytes(out)

    def end(self) -> bytes:
        """What is left when the connection ends."""
        return self._control.end() + self._message.end()

    def _read_header(self, data: bytes, out: bytearray) -> bytes:
        """Take a header, or what there is of it, from the front of the data."""
        have = self._header + data
        if len(have) < 2:
            self._header = have
            return b""
        code = have[1] & _LENGTH
        extra = {126: 2, 127: 8}.get(code, 0)
        size = 2 + extra + (4 if have[1] & _MASKED else 0)
        if len(have) < size:
            self._header = have
            return b""
        self._header = b""
        self._left = int.from_bytes(have[2 : 2 + extra], "big") if extra else code
        self._in_control = (have[0] & _OPCODE) >= _CLOSE
        out += have[:size]
        return have[size:]
