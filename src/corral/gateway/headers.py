"""Headers and queries, on their way to the upstream and back. Pure.

Inwards everything passes but what is of one connection only, what could be a credential, and what
the gateway says itself. Back passes everything but what is of one connection, or sets a cookie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

from .dialects import Refusal
from .redact import Secrets

Pairs = Iterable[tuple[str, str]]

# RFC 9110, 7.6.1.
_HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "proxy-authenticate", "proxy-authorization", "proxy-authentication-info"),
    )
)
# Said anew for the upstream, or not its business.
_OURS = frozenset(
    (
        *("host", "content-length", "content-encoding", "content-type", "accept-encoding"),
        *("expect", "forwarded", "via", "x-real-ip", "origin", "referer", "range"),
    )
)
_OURS_PREFIXES = ("x-forwarded-", "cf-", "sec-", "proxy-")
# Whatever may be a credential: authorization, x-api-key, api-key, x-goog-api-key, cookie,
# x-auth-token, x-amz-security-token ... Names of `anthropic-` and `openai-` headers are known.
_CREDENTIAL = re.compile(
    r"auth|api-?key|(^|-)key($|-)|token|secret|passw|cookie|credential|signature|session|cert"
)
_KNOWN = ("anthropic-version", "idempotency-key", "session_id", "x-session-id", "conversation_id")
_NOT_BACK = frozenset(
    (
        *("set-cookie", "set-cookie2", "content-encoding", "content-length", "alt-svc", "nel"),
        *("report-to", "reporting-endpoints", "strict-transport-security", "server", "date"),
        *("authorization", "x-api-key", "api-key", "clear-site-data"),
    )
)
OAUTH_BETA = "oauth-2025-04-20"  # what Claude Code adds with a subscription's login


def _is_text(value: str) -> bool:
    """Not bytes that are no UTF-8, which aiohttp reads and does not write (surrogates)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def onwards(pairs: Pairs, *, oauth: bool) -> list[tuple[str, str]]:
    """The guest's headers that the upstream gets. oauth: the key is a login's token."""
    pairs = [(name.lower(), value) for name, value in pairs]
    dropped = _named_by_connection(pairs)
    kept: list[tuple[str, str]] = []
    betas: list[str] = []
    for name, value in pairs:
        if not _is_text(value):
            continue
        if name == "anthropic-beta":
            betas += [part.strip() for part in value.split(",") if part.strip()]
        elif name in _KNOWN or not (
            name in _HOP_BY_HOP
            or name in _OURS
            or name in dropped
            or name.startswith(_OURS_PREFIXES)
            or _CREDENTIAL.search(name)
        ):
            kept.append((name, value))
    if oauth and OAUTH_BETA not in betas:
        betas.append(OAUTH_BETA)
    if betas:
        kept.append(("anthropic-beta", ",".join(betas)))
    return kept


def back(pairs: Pairs, secrets: Secrets) -> list[tuple[str, str]]:
    """The upstream's headers that the guest gets, without credentials."""
    pairs = [(name.lower(), value) for name, value in pairs]
    dropped = _named_by_connection(pairs)
    return [
        (name, secrets.clean_text(value))
        for name, value in pairs
        if name not in _HOP_BY_HOP
        and name not in _NOT_BACK
        and name not in dropped
        and value.isprintable()  # others could not be sent on as they came
    ]


def _named_by_connection(pairs: Pairs) -> set[str]:
    names: set[str] = set()
    for name, value in pairs:
        if name == "connection":
            names.update(part.strip().lower() for part in value.split(","))
    return names


_QUERY_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_MAX_QUERY = 4096


def query(text: str) -> str:
    """A query string without credentials, encoded anew. Raises Refusal."""
    if not text:
        return ""
    if len(text) > _MAX_QUERY:
        raise Refusal(400, "the query is too long.")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=64, errors="strict")
    except (ValueError, UnicodeError):
        raise Refusal(400, "the query makes no sense.") from None
    kept = [
        (name, value)
        for name, value in pairs
        if _QUERY_NAME.fullmatch(name) and not _QUERY_CREDENTIAL.search(name.lower())
    ]
    return urlencode(kept)


_QUERY_CREDENTIAL = re.compile(r"auth|key|token|secret|passw|credential|signature|^sig$")
