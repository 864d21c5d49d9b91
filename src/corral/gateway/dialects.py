"""The two dialects: what each may be asked, how it says that something is wrong. Pure.

Anthropic: https://docs.claude.com/en/api/errors. OpenAI:
https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

import re
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from ..policy import ANTHROPIC, Dialect

# What a request is, and so where its usage stands and how its answer is put together. `other`:
# nothing is paid for it; `count`: neither, but it names a model.
Kind = Literal["messages", "chat", "responses", "completions", "embeddings", "count", "other"]
BILLED: frozenset[Kind] = frozenset(("messages", "chat", "responses", "completions", "embeddings"))


class Route(Struct, frozen=True):
    """A request that is passed on. path: below the upstream, with its first slash."""

    kind: Kind
    path: str


class Refusal(Exception):
    """A request that is answered here.

    code: OpenAI's word for it. retry_after: seconds after which it may be sent again; None: it is
    final. recorded: it is in the transcript.
    """

    recorded = False

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = f"corral: {message}"
        self.code = code
        self.retry_after = retry_after


_ID = r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}"
# Whatever else these interfaces have (files, batches, fine-tuning, the organisation's own affairs)
# is not counted, reaches beyond one request, or is nothing for an agent.
_ANTHROPIC: tuple[tuple[str, str, Kind], ...] = (
    ("POST", r"/v1/messages", "messages"),
    ("POST", r"/v1/messages/count_tokens", "count"),
    ("GET", r"/v1/models", "other"),
    ("GET", rf"/v1/models/{_ID}(?:/{_ID})?", "other"),
)
_OPENAI: tuple[tuple[str, str, Kind], ...] = (
    ("POST", r"/chat/completions", "chat"),
    ("POST", r"/responses", "responses"),
    ("POST", r"/responses/compact", "responses"),
    ("POST", r"/completions", "completions"),
    ("POST", r"/embeddings", "embeddings"),
    ("POST", r"/responses/input_tokens", "count"),
    ("GET", rf"/responses/{_ID}(?:/input_items)?", "other"),
    ("POST", rf"/responses/{_ID}/cancel", "other"),
    ("DELETE", rf"/responses/{_ID}", "other"),
    ("GET", r"/models", "other"),
    ("GET", rf"/models/{_ID}(?:/{_ID})?", "other"),
)
OPENAI_PREFIX = "/v1"  # in the sandbox; on the way out the upstream's own path stands for it


def route(dialect: Dialect, method: str, path: str) -> Route:
    """Where a request leads; path: as it came, without its query. Raises Refusal."""
    if ".." in path or "//" in path:
        raise Refusal(404, "such a path is not passed on.", code="not_found")
    routes = _ANTHROPIC
    if dialect != ANTHROPIC:
        routes = _OPENAI
        path = path.removeprefix(OPENAI_PREFIX)
    known = False
    for verb, pattern, kind in routes:
        if re.fullmatch(pattern, path, re.ASCII):
            known = True
            if verb == method:
                return Route(kind, path)
    if known:
        raise Refusal(405, "this address is not asked by this method.", code="method_not_allowed")
    raise Refusal(
        404, "the gateway passes on requests to models and nothing else.", code="not_found"
    )


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
}
_OPENAI_TYPES = {401: "authentication_error", 429: "requests", 502: "server_error"}


def error_body(dialect: Dialect | None, refusal: Refusal) -> bytes:
    """The JSON by which this dialect says it."""
    if dialect is None:
        return msgspec.json.encode({"error": {"message": refusal.message}})
    status = refusal.status
    match dialect:
        case "anthropic":
            kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error")
            error = {"type": kind, "message": refusal.message}
            return msgspec.json.encode({"type": "error", "error": error})
        case "openai":
            return msgspec.json.encode(
                {
                    "error": {
                        "message": refusal.message,
                        "type": _OPENAI_TYPES.get(status, "invalid_request_error"),
                        "param": None,
                        "code": refusal.code,
                    }
                }
            )
    assert_never(dialect)


def error_headers(refusal: Refusal) -> dict[str, str]:
    """Those that SDKs look at: what is final is not to be asked again.

    `x-should-retry` is what the Anthropic and OpenAI SDKs obey before they look at the status.
    """
    headers = {"content-type": "application/json"}
    if refusal.status < 500:  # else whether to try again is the SDK's own affair
        headers["x-should-retry"] = "false"
    if refusal.retry_after is not None:
        seconds = max(refusal.retry_after, 0.001)
        headers["retry-after-ms"] = str(int(seconds * 1000) + 1)
        headers["retry-after"] = str(int(seconds) + 1)
        headers["x-should-retry"] = "true"
    return headers


def key_header(dialect: Dialect, header: str | None, key: str, *, bearer: bool) -> tuple[str, str]:
    """The header that carries the key, and what it says."""
    name = header or ("x-api-key" if dialect == ANTHROPIC else "authorization")
    if bearer:
        name = "authorization"
    return name, f"Bearer {key}" if name == "authorization" else key
