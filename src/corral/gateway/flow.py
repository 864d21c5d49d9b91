"""The body of an answer on its way back: unpacked, cleaned of credentials, looked at, passed on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .answers import Answer
from .redact import Redactor, Secrets
from .sse import Events, data_of

_PIECE = 1 << 18  # bytes that are unpacked at a time, whatever they came from
_MAX_WHOLE = 16 << 20  # bytes of a body of JSON that are looked into


class UnknownEncoding(Exception):
    """The upstream packs its answer in a way that it was not asked for."""


class Flow:
    """Feed it what comes; what it gives back goes to the guest.

    only_ours: the event with the usage was asked for by the gateway, and is not passed on.
    """

    def __init__(
        self,
        answer: Answer,
        secrets: Secrets,
        *,
        encoding: str = "",
        events: bool = False,
        only_ours: bool = False,
    ) -> None:
        self._answer = answer
        self._redactor = Redactor(secrets)
        self._unzip = _unpacker(encoding)
        self._events = Events() if events else None
        self._only_ours = only_ours
        self._whole: bytearray | None = None if events else bytearray()
        self.size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What goes on now. Raises zlib.error."""
        if self._unzip is None:
            yield self._pass(self._redactor.feed(data))
            return
        while data and not self._unzip.eof:
            plain = self._unzip.decompress(data, _PIECE)
            data = self._unzip.unconsumed_tail
            yield self._pass(self._redactor.feed(plain))

    def end(self) -> bytes:
        """The rest."""
        last = self._pass(self._redactor.end())
        if self._events is not None:
            rest = self._events.end()
            dropped = bool(rest) and self._look(rest)
            if self._only_ours and not dropped:
                last += rest
        elif self._whole:
            self._answer.whole(bytes(self._whole))
        return last

    def _pass(self, data: bytes) -> bytes:
        self.size += len(data)
        if self._events is None:
            if self._whole is not None:
                self._whole += data
                if len(self._whole) > _MAX_WHOLE:
                    self._whole = None
            return data
        if self._only_ours:
            return b"".join(event for event in self._events.feed(data) if not self._look(event))
        for event in self._events.feed(data):
            self._look(event)
        return data

    def _look(self, event: bytes) -> bool:
        said = data_of(event)
        return self._answer.event(said) if said else False


def _unpacker(encoding: str) -> zlib._Decompress | None:
    match encoding:
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 32)  # either's header
    raise UnknownEncoding(encoding)
