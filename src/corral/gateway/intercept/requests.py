"""Whether a request inside intercepted TLS is one for the host that TLS is for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110, 5.6.2: token
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in a value; the tab may be there
_TARGET = re.compile(rb"[!-~\x80-\xff]*\Z")
_AUTHORITY = re.compile(rb"([A-Za-z0-9._-]{1,254})(?::([0-9]{1,5}))?\Z")


def matches(host: str, pattern: str) -> bool:
    """Whether a canonical name is a secret's: the same, or below what "*.name" names."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def split_port(host: str) -> tuple[str, int]:
    """A secret's host and port: 443 unless it says otherwise."""
    name, colon, port = host.partition(":")
    return name, int(port) if colon else 443


def belongs(name: str, port: int, hosts: Iterable[str]) -> bool:
    """Whether one of a secret's hosts is this name and port."""
    return any(
        matches(name, pattern) and port == wanted for pattern, wanted in map(split_port, hosts)
    )


def names_host(authority: bytes, name: str, port: int) -> bool:
    """Whether an authority (host, or host:port) is this host; 443 is implied by https."""
    match = _AUTHORITY.match(authority)
    if match is None:
        return False
    host = match[1].decode().lower()
    host = host[:-1] if host.endswith(".") else host
    return host == name and int(match[2] or 443) == port


def fault(
    name: str,
    port: int,
    *,
    http1: bool,
    method: bytes,
    target: bytes,
    authority: bytes,
    scheme: bytes,
    headers: Headers,
) -> str | None:
    """Why a request is refused, for its sender; None when it is in order.

    authority: of an absolute target (HTTP/1), or the pseudo header (HTTP/2).
    """
    headers = list(headers)
    if not _NAME.match(method) or not _TARGET.match(target):
        return "The request line has characters that it may not have."
    if not all(_NAME.match(key) and not _FORBIDDEN.search(value) for key, value in headers):
        return "A header has characters that it may not have."
    hosts = [value for key, value in headers if key.lower() == b"host"]
    if http1 and len(hosts) != 1:
        return "The request needs one Host header, and only one."
    if not http1 and not authority:
        return "The request has no :authority."
    if authority and scheme.lower() != b"https":
        return "The request is for another scheme than https."
    for said in (*hosts, *((authority,) if authority else ())):
        if not names_host(said, name, port):
            return f"This connection is for {name}, and the request is for another host."
    return None
