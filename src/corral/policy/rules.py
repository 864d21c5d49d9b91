"""Rules, addresses and published ports as the user writes them, read into values."""

from __future__ import annotations

from ipaddress import (
    AddressValueError,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NetmaskValueError,
    ip_address,
    ip_network,
)

from .model import Address, Publish, Rule
from .names import BadName, Host, parse, parse_port, shown, split_port
from .presets import hosts_of

_LOOPBACK = "127.0.0.1"


def parse_rules(text: str) -> tuple[Rule, ...]:
    """What one entry of allow or deny says: HOST[:PORT], or @PRESET for all of its hosts.

    HOST is a name, "*.NAME", "*", an address or a network; IPv6 with a port in brackets. Raises
    BadName.
    """
    if text.startswith("@"):
        return tuple(
            Rule(host=rule.host, port=rule.port, text=f"{text} ({each})")
            for each in hosts_of(text[1:])
            for rule in (_rule(each),)
        )
    return (_rule(text),)


def parse_address(text: str) -> Address:
    """NAME[:PORT]=ADDRESS[:PORT], where a name leads. Raises BadName."""
    left, equals, right = text.partition("=")
    if not equals:
        raise BadName(f"{shown(text)} is not NAME[:PORT]=ADDRESS[:PORT].")
    name, port = split_port(left)
    target, to_port = split_port(right)
    host = parse(target)
    if host.address is None:
        raise BadName(f"{shown(right)} is a name, and an address is needed after the '='.")
    return Address(name=parse(name).text, port=port, address=host.text, to_port=to_port)


def parse_publish(text: str) -> Publish:
    """[HOST:]PORT[:GUEST], a port of the host that leads into the sandbox. Raises BadName.

    HOST is an address of this machine, 127.0.0.1 unless said; PORT 0 is any that is free, which
    needs GUEST.
    """
    rest, address = text, _LOOPBACK
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]:")
        if not bracket:
            raise BadName(f"{shown(text)} is not [HOST:]PORT[:GUEST].")
        address = _own_address(inside)
    else:
        first, colon, after = text.partition(":")
        if colon and not first.isdigit():
            address, rest = _own_address(first), after
    outer, colon, inner = rest.partition(":")
    port = parse_port(outer, lowest=0)
    if not port and not colon:
        raise BadName(f"{shown(text)}: which port of the sandbox? Write 0:PORT.")
    return Publish(address=address, port=port, guest_port=parse_port(inner) if colon else port)


def rule_text(host: str, port: int | None) -> str:
    """A rule as a user would write it."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _rule(text: str) -> Rule:
    if "://" in text:
        raise BadName(f"{shown(text)} is a URL; write the host only, as in pypi.org:443.")
    if "/" in text:
        host, port = split_port(text)
        return Rule(host=_network(host, text), port=port, text=text)
    host, port = split_port(text)
    return Rule(host=_pattern(host, text), port=port, text=text)


def _pattern(host: str, text: str) -> str:
    if host == "*":
        return host
    if host.startswith("*."):
        return f"*.{_name(host[2:], text).text}"
    if "*" in host:
        raise BadName(f"{shown(text)}: a '*' stands for whole parts in front only, as in *.x.org.")
    return parse(host).text


def _name(text: str, whole: str) -> Host:
    host = parse(text)
    if host.address is not None:
        raise BadName(f"{shown(whole)}: '*.' goes before a name, not before an address.")
    return host


def _network(text: str, whole: str) -> str:
    base, _, length = text.partition("/")
    if not (length.isascii() and length.isdigit()):
        raise BadName(f"{shown(whole)} is not a network such as 192.0.2.0/24.")
    try:
        network = ip_network(f"{base}/{length}", strict=False)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise BadName(f"{shown(whole)} is not a network such as 192.0.2.0/24.") from error
    if network.network_address != ip_address(base):
        raise BadName(f"{shown(whole)} names a host in a network; write {network} or {base}.")
    if isinstance(network, IPv6Network):
        network = _unmapped(network, whole)
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


def _unmapped(network: IPv6Network, whole: str) -> IPv4Network | IPv6Network:
    """IPv4-mapped addresses are IPv4 addresses everywhere, so networks of them are, too."""
    mapped = IPv6Network("::ffff:0:0/96")
    if not network.overlaps(mapped):
        return network
    start = IPv6Address(network.network_address).ipv4_mapped
    if network.prefixlen < mapped.prefixlen or start is None:
        raise BadName(f"{shown(whole)} has IPv4 addresses in it; name the two kinds apart.")
    return IPv4Network((start, network.prefixlen - mapped.prefixlen))


def _own_address(text: str) -> str:
    if text == "localhost":
        return _LOOPBACK
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise BadName(
            f"{shown(text)} is not an address of this machine, such as 127.0.0.1 or 0.0.0.0."
        ) from error
