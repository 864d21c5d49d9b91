"""What the interceptor is told, and what it tells its parent: one line of JSON each."""

from __future__ import annotations

import ipaddress

import msgspec

MAX_PREFACE = 4096  # bytes of the line that begins a connection
MAX_ADDRESSES = 32


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret as the interceptor is told of it.

    hosts: as policy.Secret. header: lower case. placeholder: one that a copy of a sandbox already
    holds; None for a new one.
    """

    name: str
    hosts: tuple[str, ...]
    header: str
    placeholder: str | None = None


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the interceptor does.

    authorities: the file of certificates that it trusts; "" for the host's.
    """

    secrets: tuple[Wanted, ...]
    authorities: str = ""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready", tag_field="kind"):
    """Its first word. certificate: of this sandbox's own authority, PEM. hash: of its subject, as
    OpenSSL names files in a folder of certificates."""

    certificate: str
    hash: str
    placeholders: dict[str, str]


class Unusable(msgspec.Struct, frozen=True, kw_only=True, tag="unusable", tag_field="kind"):
    """Its first and last word: it cannot work. message: for the user."""

    message: str


class Misplaced(msgspec.Struct, frozen=True, kw_only=True):
    """A placeholder was sent where it is not replaced. where: "header x-y", "URL", "body"."""

    secret: str
    agent: int
    host: str
    where: str


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A request could not be passed on. reason: a sentence's worth."""

    agent: int
    host: str
    reason: str


Word = Ready | Unusable


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line to the parent. notice: for the user, who reads it as it is."""

    word: Word | None = None
    notice: str = ""


class Preface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine says of a connection before its first byte.

    name: canonical. addresses: those that the name leads to; one of them is dialled, no other.
    to_port: where it is dialled, when that is not `port`.
    """

    agent: int
    name: str
    port: int
    addresses: tuple[str, ...]
    to_port: int | None = None


def read_preface(line: bytes) -> Preface:
    """Parse the first line of a connection. Raises ValueError."""
    preface = msgspec.json.decode(line, type=Preface)
    if not 0 < preface.port < 65536 or not 0 < (preface.to_port or preface.port) < 65536:
        raise ValueError("port")
    if not 0 < len(preface.addresses) <= MAX_ADDRESSES:
        raise ValueError("addresses")
    if not 0 < len(preface.name) <= 253 or not preface.name.isascii():
        raise ValueError("name")
    for address in preface.addresses:
        if "%" in address:
            raise ValueError("address")
        ipaddress.ip_address(address)
    return preface
