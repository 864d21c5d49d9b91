"""What a server answers, made fit to go back: no secret in it, its framing in order. Pure.

A compressed answer cannot be searched. So servers are asked for none (Accept-Encoding: identity);
gzip and deflate, where they come all the same, are decompressed here and go on plain; anything else
is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from ..redact import Redactor
from .replace import Needles
from .websocket import FrameScrubber

Fields = tuple[tuple[bytes, bytes], ...]

_PIECE = 1 << 16  # bytes that are decompressed at once
_MOST_INFLATED = 1 << 24  # of what came in one piece: 64 KiB of zeros would be 64 MiB
_PLAIN = (b"", b"identity")
_INFLATED = (b"gzip", b"x-gzip", b"deflate")
_NEVER = (b"alt-svc", b"proxy-connection")  # the way over UDP is closed


class UnreadableAnswerError(Exception):
    """An answer in which secrets cannot be looked for. Its text says why."""


def request_fields(fields: Iterable[tuple[bytes, bytes]], *, http1: bool) -> Fields:
    """The headers of a request as they go on: what would make the answer unreadable is left out."""
    fields = tuple(fields)
    upgrade = b"".join(value for key, value in fields if key.lower() == b"upgrade").lower()
    websocket = http1 and upgrade == b"websocket"
    dropped = {b"accept-encoding", b"sec-websocket-extensions", b"proxy-connection"}
    if http1:
        dropped |= {b"te", b"http2-settings"}
        if not websocket:
            dropped.add(b"upgrade")
    kept = []
    for key, value in fields:
        name = key.lower()
        if name in dropped:
            continue
        if name == b"connection" and http1 and not websocket:
            value = b", ".join(
                part
                for part in (each.strip() for each in value.split(b","))
                if part.lower() not in (b"te", b"upgrade", b"http2-settings")
            )
            if not value:
                continue
        kept.append((key, value))
    kept.append((b"Accept-Encoding" if http1 else b"accept-encoding", b"identity"))
    return tuple(kept)


class Answer:
    """One answer on its way back. Raises UnreadableAnswerError where that is said."""

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._body: Redactor | FrameScrubber = Redactor(needles)
        self._inflate: Inflate | None = None
        self.upgraded = False

    def head(self, status: int, fields: Fields, *, bodyless: bool, chunks: bool) -> Fields:
        """The headers as they go back. bodyless: no body follows, whatever they say.

        chunks: whether the client speaks HTTP/1.1, which has a body of unknown length in chunks.
        """
        out = [
            (self._needles.clean(key), self._needles.clean(value))
            for key, value in fields
            if key.lower() not in _NEVER
        ]
        if status == 101:
            self.upgraded = True
            self._body = FrameScrubber(self._needles)
            if any(key.lower() == b"sec-websocket-extensions" for key, _value in out):
                raise UnreadableAnswerError("its WebSocket is compressed, which nobody asked for")
            return tuple(out)
        transfer = b",".join(v for k, v in out if k.lower() == b"transfer-encoding").lower()
        if transfer.strip() not in (b"", b"chunked", b"identity"):
            raise UnreadableAnswerError("its transfer coding is not chunked")
        if bodyless:
            return tuple(out)
        encoding = b",".join(v for k, v in out if k.lower() == b"content-encoding").strip().lower()
        if encoding in _PLAIN:
            return tuple(out)
        if encoding not in _INFLATED or status == 206:
            raise UnreadableAnswerError("it is compressed, which nobody asked for")
        self._inflate = Inflate()
        dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
        out = [(key, value) for key, value in out if key.lower() not in dropped]
        if chunks:
            out.append((b"Transfer-Encoding", b"chunked"))
        return tuple(out)

    def trailers(self, fields: Fields) -> Fields:
        """Headers after the body."""
        return tuple((self._needles.clean(k), self._needles.clean(v)) for k, v in fields)

    def data(self, data: bytes) -> Iterator[bytes]:
        """What of the body may go back now."""
        for piece in self._inflate.feed(data) if self._inflate else (data,):
            yield self._body.feed(piece)

    def end(self) -> bytes:
        """The rest of the body."""
        if self._inflate is not None:
            self._inflate.end()
        return self._body.end()


class Inflate:
    """gzip, or deflate as servers write it: with zlib's header (RFC 9110, 8.4.1.2) or without."""

    def __init__(self) -> None:
        self._zlib: zlib._Decompress | None = None
        self._first = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes, in pieces."""
        if self._zlib is None:
            self._first += data
            if len(self._first) < 2:
                return
            data, self._first = self._first, b""
            self._zlib = zlib.decompressobj(_window(data))
        total = 0
        while data:
            try:
                piece = self._zlib.decompress(data, _PIECE)
            except zlib.error as error:
                raise UnreadableAnswerError("it is compressed in a wrong way") from error
            total += len(piece)
            if total > _MOST_INFLATED:
                raise UnreadableAnswerError("it grows too much when it is decompressed")
            yield piece
            if self._zlib.eof:
                data = self._zlib.unused_data
                if data:  # another member of a gzip file (RFC 1952, 2.2)
                    self._zlib = zlib.decompressobj(_window(data))
            else:
                data = self._zlib.unconsumed_tail

    def end(self) -> None:
        """The end of the body."""
        if self._zlib is not None and not self._zlib.eof:
            raise UnreadableAnswerError("it is compressed, and its end is missing")


def _window(data: bytes) -> int:
    """What zlib is to expect (zlib.decompressobj): gzip, zlib, or bare."""
    if data[:2] == b"\x1f\x8b":
        return 31
    zlib_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return 15 if zlib_header else -15
