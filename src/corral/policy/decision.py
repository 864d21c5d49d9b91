"""Whether a connection may be made: first by its name and port, then by each address."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from .addresses import forms, is_this_host, network, special
from .model import Address, Network, Rule
from .names import Host, IPAddress, from_address

# Names that are not of the public DNS: RFC 6761 and 6762, 7686, 8375, 9476, ICANN for internal.
# Mode internet does not ask for them: the question alone would tell the local network something.
_NOT_PUBLIC = (
    *("alt", "corp", "home", "home.arpa", "internal", "intranet", "invalid", "lan", "local"),
    *("localdomain", "localhost", "mail", "onion", "private", "test"),
)


class Verdict(Struct, frozen=True):
    """allowed or not; why, in a few words; the text of the rule that decided, or ""."""

    allowed: bool
    reason: str = ""
    rule: str = ""


def decide(policy: Network, host: Host, port: int, *, extra: Iterable[Rule] = ()) -> Verdict:
    """Whether a connection to a name or literal address may be tried. What comes of the name is
    for `decide_address`, and each address has to pass that.

    extra: rules that allow, beside those of the policy, in any mode: hosts of secrets, say.
    """
    denied = _denied(policy, host, port)
    if denied is not None:
        return Verdict(False, "denied by a rule", denied.text)
    for rule in extra:
        if matches(rule, host) and port == rule.port:
            return Verdict(True, rule=rule.text)
    if policy.mode == "none":
        return Verdict(False, "no network")
    other_port = False
    for rule in policy.allow:
        if matches(rule, host):
            if port in (policy.ports if rule.port is None else (rule.port,)):
                return Verdict(True, rule=rule.text)
            other_port = True
    if policy.mode == "internet":
        if port not in policy.ports:
            return Verdict(False, "port not on the list")
        if host.address is None and not _public_name(host.text) and not _named(policy, host):
            return Verdict(False, "not a public name")
        return Verdict(True, rule="internet")
    return Verdict(False, "port not on the list" if other_port else "not on the list")


def decide_address(
    policy: Network, address: IPAddress, port: int, *, own: bool = False, named: bool = False
) -> Verdict:
    """Whether this very address may be dialled, after its name was allowed.

    own: whether it is one of the host's own, by the host's routes. named: whether the policy's
    `addresses` have it for that name. An address that is not public must be named, there or by a
    literal rule; that of a metadata service and of the host itself one by one, not by a network.
    """
    host = from_address(address)
    address = host.address or address  # an IPv4-mapped one is its IPv4 address from here on
    for form in forms(address):
        denied = _denied(policy, from_address(form), port)
        if denied is not None:
            return Verdict(False, "denied by a rule", denied.text)
    if named:
        return Verdict(True)
    kind = special(address)
    if own or is_this_host(address):
        kind = kind or "host's own"
    if not kind:
        return Verdict(True)
    alone = own or kind == "metadata" or is_this_host(address)
    for rule in policy.allow:
        literal = rule.host == host.text or (not alone and "/" in rule.host)
        right_port = port in policy.ports if rule.port is None else port == rule.port
        if literal and right_port and matches(rule, host):
            return Verdict(True, rule=rule.text)
    return Verdict(False, f"{kind} address")


def addresses_of(policy: Network, host: Host, port: int) -> tuple[Address, ...]:
    """What the policy says in place of the resolver; empty where it says nothing."""
    return tuple(
        each
        for each in policy.addresses
        if each.name == host.text and (each.port is None or each.port == port)
    )


def matches(rule: Rule, host: Host) -> bool:
    """Whether a rule is about this host, whatever the port."""
    if host.address is not None:
        if "/" not in rule.host:
            return rule.host == host.text
        block = network(rule.host)
        return block.version == host.address.version and host.address in block
    if rule.host == "*":
        return True
    if rule.host.startswith("*."):
        return host.text.endswith(rule.host[1:])
    return rule.host == host.text


def _denied(policy: Network, host: Host, port: int) -> Rule | None:
    for rule in policy.deny:
        if matches(rule, host) and rule.port in (None, port):
            return rule
    return None


def _public_name(name: str) -> bool:
    return "." in name and not any(
        name == each or name.endswith(f".{each}") for each in _NOT_PUBLIC
    )


def _named(policy: Network, host: Host) -> bool:
    return any(each.name == host.text for each in policy.addresses)
