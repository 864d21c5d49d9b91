"""The body of a request: read once, checked, and written again, so that what was checked is what
is sent. Pure.

A body is decoded as a whole and encoded anew: of a key that comes twice the upstream could take the
other one, and be asked for a model that nobody allowed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Struct

from ..policy import ANTHROPIC, Gateway
from .account import has_budget
from .dialects import BILLED, Kind, Refusal
from .prices import Table
from .usage import Usage

MAX_BODY = 64 << 20  # bytes; Anthropic takes 32 MB
# Commas and brackets: `[],[],...` takes 25 times its size when it is read, and seconds in which
# nobody else is served. A text of a million tokens, full of numbers, has fewer.
MAX_PARTS = 2_000_000
_PIECE = 1 << 18  # bytes that are unpacked at a time, whatever they came from
_BYTES_A_TOKEN = 3  # few enough that an estimate is rather too high
_MOST_OUTPUT = 128_000  # tokens, of every model in the table; of requests that name no limit
_MAX_FURTHER = 32  # names; OpenRouter takes 3
# Kinds of service at the listed price or below it.
_USUAL_SERVICE = ("auto", "default", "flex", "standard", "standard_only")


class Asked(Struct, kw_only=True):
    """What a request asks for. further: models that may answer in place of `model`. body: to be
    sent. injected: usage is asked for on our behalf."""

    model: str = ""
    further: tuple[str, ...] = ()
    stream: bool = False
    body: bytes = b""
    injected: bool = False
    most_output: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """All that may answer."""
        return (self.model, *self.further)

    def at_most(self) -> Usage:
        """What it can cost in tokens."""
        taken = len(self.body) // _BYTES_A_TOKEN + 1
        return Usage(input=taken, output=self.most_output)


class Unpacker:
    """Takes the content encoding off a body as it comes, so that it can be counted as it grows.

    Raises Refusal, from each of its methods.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            text = "a request's body may be compressed by gzip only."
            raise Refusal(415, text, code="unsupported")
        packed = encoding in ("gzip", "x-gzip")
        self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if packed else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What has come now, in pieces."""
        if self._unzip is None:
            yield data
            return
        plain = b""
        while data or len(plain) == _PIECE:  # a full piece may have left something inside
            try:
                plain = self._unzip.decompress(data, _PIECE)
            except zlib.error:
                raise _not_gzip() from None
            if self._unzip.unused_data:
                raise _not_gzip()
            data = self._unzip.unconsumed_tail
            yield plain

    def end(self) -> None:
        """It was all."""
        if self._unzip is not None and not self._unzip.eof:
            raise _not_gzip()


def _not_gzip() -> Refusal:
    return Refusal(400, "the body is not gzip.", code="invalid_body")


def too_large() -> Refusal:
    """A body that is not taken."""
    return Refusal(413, f"the body is larger than {MAX_BODY >> 20} MiB.", code="too_large")


def read(kind: Kind, gateway: Gateway, data: bytes | bytearray, table: Table) -> Asked:
    """What a request asks for. Raises Refusal for what is no such request, or not allowed."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_PARTS:
        raise Refusal(413, "the body has too many parts.", code="too_large")
    try:
        said = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise Refusal(400, "the body is not JSON.", code="invalid_body") from None
    if not isinstance(said, dict):
        raise Refusal(400, "the body is not a JSON object.", code="invalid_body")
    _check_spelling(said)
    model = said.get("model")
    if model is None and kind == "other":
        model = ""
    if not isinstance(model, str) or len(model) > 256 or not (model or kind == "other"):
        raise Refusal(400, "the request names no model.", code="model_not_found")
    asked = Asked(model=model, stream=said.get("stream") is True)
    if gateway.models or has_budget(gateway):
        asked.further = _further(said)
    _check_models(asked, gateway)
    if kind in BILLED:
        if has_budget(gateway):
            _check_price(said, asked, gateway, table)
        asked.most_output = _most_output(said)
    if kind in ("chat", "completions") and asked.stream:
        asked.injected = _ask_for_usage(said)
    try:
        asked.body = msgspec.json.encode(said)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise Refusal(400, "the body is not JSON.", code="invalid_body") from None
    return asked


_LOOKED_AT = frozenset(
    ("model", "models", "stream", "stream_options", "service_tier", "speed", "background")
)


def _check_spelling(said: dict[str, Any]) -> None:
    """Some upstreams (those written in Go) take MODEL for model."""
    for key in said:
        if key not in _LOOKED_AT and key.lower() in _LOOKED_AT:
            raise Refusal(400, f"write “{key.lower()}” in lower case.", code="invalid_body")


def _further(said: dict[str, Any]) -> tuple[str, ...]:
    """OpenRouter's `models`: others to fall back to."""
    further = said.get("models")
    if further is None:
        return ()
    if not isinstance(further, list) or not all(isinstance(each, str) for each in further):
        raise Refusal(400, "“models” is not a list of names.", code="invalid_body")
    if len(further) > _MAX_FURTHER:
        raise Refusal(400, f"“models” has more than {_MAX_FURTHER} names.", code="invalid_body")
    return tuple(further)


def _check_models(asked: Asked, gateway: Gateway) -> None:
    for each in asked.models if gateway.models else ():
        if each and not any(fnmatchcase(each, pattern) for pattern in gateway.models):
            shown = each[:100].encode("unicode_escape").decode()
            raise Refusal(
                404,
                f"the model {shown} is not allowed here; allowed: {', '.join(gateway.models)}.",
                code="model_not_found",
            )


def _check_price(said: dict[str, Any], asked: Asked, gateway: Gateway, table: Table) -> None:
    """With a budget, only what can be counted."""
    for each in asked.models:
        if table.price(each) is None and "://openrouter.ai/" not in gateway.upstream:
            raise Refusal(
                400,
                f"no price is known for {each[:100]}, so it cannot be used with a budget.",
                code="model_not_found",
            )
    for key, usual in (("service_tier", _USUAL_SERVICE), ("speed", ("standard",))):
        if said.get(key) is not None and said[key] not in usual:
            raise Refusal(400, f"this “{key}” has a price of its own; there is a budget.")
    if said.get("background"):
        raise Refusal(400, "a background response cannot be counted, and there is a budget.")
    choices = said.get("n", said.get("best_of"))
    if gateway.dialect != ANTHROPIC and choices is not None and type(choices) is not int:
        raise Refusal(400, "“n” is not a number.", code="invalid_body")


def _most_output(said: dict[str, Any]) -> int:
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        limit = said.get(key)
        if type(limit) is int and 0 <= limit <= _MOST_OUTPUT:
            break
    else:
        limit = _MOST_OUTPUT
    choices = said.get("n")
    return limit * (choices if type(choices) is int and 0 < choices <= 128 else 1)


def _ask_for_usage(said: dict[str, Any]) -> bool:
    """Have the stream end with its usage; whether the client did not ask for that itself."""
    options = said.get("stream_options")
    options = dict(options) if isinstance(options, dict) else {}
    asked_for = options.get("include_usage") is True
    said["stream_options"] = {**options, "include_usage": True}
    return not asked_for
