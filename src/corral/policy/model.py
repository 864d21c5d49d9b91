"""The network policy of a sandbox, resolved: what the spec holds and the engine decides by."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Mode = Literal["none", "allow", "internet"]

# Names below it lead to the gateway and nowhere else: anthropic.corral.internal, say. `internal`
# is reserved for private use and never delegated (ICANN board resolution 2024.07.29.06).
GATEWAY_DOMAIN = "corral.internal"


class Rule(Struct, frozen=True, kw_only=True):
    """Where a connection may, or may not, lead.

    host: a canonical name ("pypi.org"), one of "*.name" for all names below it, "*" for every
    name, an address ("192.0.2.7") or a network ("192.0.2.0/24", "2001:db8::/32"), each in its one
    canonical notation. port: None for each of Network.ports, in a rule that denies for every port.
    text: as the user wrote it.
    """

    host: str
    port: int | None
    text: str


class Address(Struct, frozen=True, kw_only=True):
    """Where a name leads, in place of what the host's resolver says, as in /etc/hosts.

    name: canonical. port: of the name this is for, None for all. address: canonical; it may be a
    private one, since the user has named it. to_port: None for the port that was asked for.
    """

    name: str
    port: int | None
    address: str
    to_port: int | None


class Publish(Struct, frozen=True, kw_only=True):
    """A port of the host that leads into the sandbox.

    address: what it is bound to on the host. port: there, 0 for any that is free. guest_port: of
    the agent's loopback.
    """

    address: str
    port: int
    guest_port: int


class Limits(Struct, frozen=True, kw_only=True):
    """What one agent may use of the network.

    connections: open at once. rate: new ones a second, after as many at once. total: bytes in
    both directions in the sandbox's life, None for no limit. idle: seconds without a byte after
    which a connection is closed.
    """

    connections: int = 256
    rate: float = 50.0
    total: int | None = None
    idle: float = 900.0


class Network(Struct, frozen=True, kw_only=True):
    """What may go out, and come in.

    ports: of rules that name none, and of mode internet. deny goes before allow.
    """

    mode: Mode = "none"
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    addresses: tuple[Address, ...] = ()
    publish: tuple[Publish, ...] = ()
    limits: Limits = Limits()
