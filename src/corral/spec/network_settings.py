"""The settings of the network: what may go out, what comes in, which doors there are.

Rules, addresses and ports are read by corral.policy.rules, which decides by them too, so that no
name means one thing here and another there.
"""

from __future__ import annotations

import math
import re
from typing import cast

from msgspec import Struct

from ..errors import ConfigError
from ..policy import GATEWAY_DOMAIN, Address, Limits, Publish, Rule
from .credentials import refuse_credential
from .setting import Setting
from .sizes import KIB, TIB, parse_amount, parse_count, parse_duration
from .text import printable
from .values import VARIABLE_NAME, Base, choice, show_duration, show_size

MODES: tuple[str, ...] = ("none", "allow", "internet")
"""From the narrowest to the widest."""
GATEWAY_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A label of DNS (RFC 1123, 2.1): it becomes NAME.corral.internal."""

MAX_PORTS = 64  # each is a listening socket in every agent's network namespace
MAX_CONNECTIONS = 4096
MIN_RATE, MAX_RATE = 0.1, 10_000.0
MIN_BYTES, MAX_BYTES = KIB, 1024 * TIB

_DEFAULT = Limits()


class NamedRules(Struct, frozen=True):
    """An entry of allow or deny: as written, and the rules that it stands for."""

    text: str
    rules: tuple[Rule, ...]


class NamedSecret(Struct, frozen=True):
    """A secret as named. hosts: rules of those given with it; () for those of its table."""

    name: str
    hosts: tuple[Rule, ...]


def parse_rules(value: object, _base: Base) -> object:
    """An entry of allow or deny; a preset stands for all of its rules."""
    from ..policy import rules

    text = _text(value, "a host")
    try:
        found = rules.parse_rules(text)
    except ValueError as error:
        raise _wrong(error, "Write NAME, *.NAME or an address, then :PORT, or @PRESET.") from error
    for rule in found:
        _refuse_gateway_names(rule.host)
    return NamedRules(text.strip(), found)


def parse_host(value: object, _base: Base) -> object:
    """An Address, from NAME[:PORT]=ADDRESS[:PORT]."""
    from ..policy import rules

    text = _text(value, "a host with its address")
    try:
        found = rules.parse_address(text)
    except ValueError as error:
        raise _wrong(error, "Write NAME[:PORT]=ADDRESS[:PORT], as db.test=192.168.1.5.") from error
    _refuse_gateway_names(found.name)
    return found


def parse_publish(value: object, _base: Base) -> object:
    """A Publish, from [HOST:]PORT[:GUEST]."""
    from ..policy import rules

    whole = isinstance(value, int) and not isinstance(value, bool)
    text = printable(str(value), 20) if whole else _text(value, "a port")
    try:
        return rules.parse_publish(text)
    except ValueError as error:
        raise _wrong(error, "Write [HOST:]PORT[:GUEST], as 8080:80.") from error


def parse_ports(value: object, _base: Base) -> object:
    """Ports in rising order, from a list or from text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        items = [items]
    ports = tuple(sorted({parse_count(item, 1, 65535, "a port", "443") for item in items}))
    if not 0 < len(ports) <= MAX_PORTS:
        raise ConfigError(f"1 to {MAX_PORTS} ports are possible, not {len(ports)}.")
    return ports


def parse_rate(value: object, _base: Base) -> object:
    """Connections a second."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not MIN_RATE <= number <= MAX_RATE:
        raise ConfigError(
            f"{printable(repr(value), 60)} is not a rate: {MIN_RATE:g} to {MAX_RATE:g} "
            "connections a second are possible."
        )
    return number


def parse_gateway(value: object, _base: Base) -> object:
    """The name of a gateway."""
    text = _text(value, "the name of a gateway")
    if not GATEWAY_NAME.fullmatch(text):
        raise ConfigError(
            f"“{printable(text, 80)}” is not a name for a gateway.",
            hint="Lower-case letters, digits and hyphens are possible, at most 63.",
        )
    return text


def parse_secret(value: object, _base: Base) -> object:
    """A NamedSecret, from NAME or NAME@HOST[,HOST]."""
    text = _text(value, "the name of a secret")
    name, at, hosts = text.partition("@")
    check_secret_name(name)
    return NamedSecret(name, parse_secret_hosts(hosts.split(",")) if at else ())


def check_secret_name(name: str) -> None:
    """ConfigError when `name` cannot be a variable's."""
    refuse_credential(name, "the name of a secret")
    if not VARIABLE_NAME.fullmatch(name):
        raise ConfigError(
            f"“{printable(name, 60)}” is not a name for a secret.",
            hint="It is the name of a variable: letters, digits and _, not starting with a digit; "
            "then @ and its hosts, as GITHUB_TOKEN@api.github.com.",
        )


def parse_secret_hosts(texts: list[str]) -> tuple[Rule, ...]:
    """Where a secret may go: names, or *.NAME, with a port where it is not 443.

    An address is refused, as TLS names none (RFC 6066, 3); so is every name below a top-level
    domain, most of which are other people's.
    """
    import ipaddress

    found = []
    for text in texts:
        item = cast("NamedRules", parse_rules(text, Base("/", "/", "/")))
        rule = item.rules[0]
        try:
            ipaddress.ip_network(rule.host)
            is_name = False
        except ValueError:
            is_name = True
        broad = rule.host == "*" or (rule.host.startswith("*.") and "." not in rule.host[2:])
        if len(item.rules) != 1 or item.text.startswith("@") or not is_name or broad:
            raise ConfigError(
                f"a secret cannot be for “{printable(text, 80)}”.",
                hint="Name its hosts, each NAME or *.NAME: api.github.com, say.",
            )
        found.append(Rule(host=rule.host, port=rule.port or 443, text=rule.text))
    return tuple(dict.fromkeys(found))


def secret_host(rule: Rule) -> str:
    """As policy.Secret has it."""
    return rule.host if rule.port == 443 else f"{rule.host}:{rule.port}"


def show_mode(value: object) -> str:
    names = {"none": "no network", "allow": "only hosts that are allowed"}
    return names.get(str(value), "any public host on the internet")


def show_rules(value: object) -> str:
    return printable(value.text if isinstance(value, NamedRules) else str(value))


def ask_rules(value: object) -> str:
    """What an entry of allow would open."""
    if not isinstance(value, NamedRules):
        return printable(str(value))
    if not value.text.startswith("@"):
        return f"connections to {printable(value.text)}"
    hosts = ", ".join(dict.fromkeys(rule.host for rule in value.rules))
    return f"connections to the hosts of {printable(value.text)}: {printable(hosts, 2000)}"


def show_host(value: object) -> str:
    if not isinstance(value, Address):
        return printable(str(value))
    port = "" if value.port is None else f":{value.port}"
    bracketed = f"[{value.address}]" if ":" in value.address and value.to_port else value.address
    to_port = "" if value.to_port is None else f":{value.to_port}"
    return printable(f"{value.name}{port}={bracketed}{to_port}")


def ask_host(value: object) -> str:
    if not isinstance(value, Address):
        return printable(str(value))
    source, _, target = show_host(value).partition("=")
    return f"connections to {target}, whenever the sandbox asks for {source}"


def show_publish(value: object) -> str:
    if not isinstance(value, Publish):
        return printable(str(value))
    address = f"[{value.address}]" if ":" in value.address else value.address
    return f"{address}:{value.port}:{value.guest_port}"


def ask_publish(value: object) -> str:
    import ipaddress

    if not isinstance(value, Publish):
        return printable(str(value))
    who = (
        "programs on this machine"
        if ipaddress.ip_address(value.address).is_loopback
        else "everyone who reaches this machine"
    )
    port = f"port {value.port}" if value.port else "some port"
    return f"{who} can connect to {port} of {value.address}, and so to the sandbox"


def show_ports(value: object) -> str:
    return ", ".join(str(port) for port in value) if isinstance(value, tuple) else str(value)


def ask_gateway(value: object) -> str:
    return f"requests to your gateway {printable(str(value))}, with your key and at your cost"


def show_secret(value: object) -> str:
    if not isinstance(value, NamedSecret):
        return printable(str(value))
    hosts = ",".join(secret_host(rule) for rule in value.hosts)
    return f"{value.name}@{hosts}" if hosts else value.name


def ask_secret(value: object) -> str:
    name = value.name if isinstance(value, NamedSecret) else str(value)
    return f"requests with your {printable(name)}, to the hosts that you gave it for"


def show_number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _address_name(value: object) -> object:
    return (value.name, value.port) if isinstance(value, Address) else value


def _secret_name(value: object) -> object:
    return value.name if isinstance(value, NamedSecret) else value


def _item(value: object) -> object:
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{printable(repr(value), 60)} is not {what}.")
    return value


def _wrong(error: ValueError, hint: str) -> ConfigError:
    """policy's error, which quotes what was written, as ours."""
    return ConfigError(printable(str(error), 300), hint=hint)


def _refuse_gateway_names(host: str) -> None:
    name = host.removeprefix("*.")
    if name == GATEWAY_DOMAIN or name.endswith("." + GATEWAY_DOMAIN):
        raise ConfigError(
            f"names below {GATEWAY_DOMAIN} lead to gateways only.",
            hint="Name the gateway: --gateway NAME.",
        )


NETWORK_SETTINGS: tuple[Setting, ...] = (
    Setting(
        key="network.mode",
        option="--net",
        variable="CORRAL_NET",
        meaning="none, allow or internet",
        parse=choice(MODES),
        default="none",
        tighter="mode",
        show=show_mode,
    ),
    Setting(
        key="network.allow",
        option="--allow",
        variable="CORRAL_ALLOW",
        meaning="hosts that may be reached, separated by commas",
        parse=parse_rules,
        adds=True,
        identity=_item,
        show=show_rules,
        asks=ask_rules,
    ),
    Setting(
        key="network.deny",
        option="--deny",
        variable="CORRAL_DENY",
        meaning="hosts that may not be reached, separated by commas",
        parse=parse_rules,
        adds=True,
        identity=_item,
        tighter="more",
        show=show_rules,
    ),
    Setting(
        key="network.ports",
        option="--net-ports",
        variable="CORRAL_NET_PORTS",
        meaning="ports of hosts without one, and of mode internet",
        parse=parse_ports,
        default=(80, 443),
        tighter="subset",
        show=show_ports,
    ),
    Setting(
        key="network.hosts",
        option="--host",
        variable="CORRAL_HOSTS",
        meaning="where names lead, NAME=ADDRESS, separated by commas",
        parse=parse_host,
        adds=True,
        identity=_address_name,
        show=show_host,
        asks=ask_host,
    ),
    Setting(
        key="network.publish",
        option="--publish",
        variable="CORRAL_PUBLISH",
        meaning="ports that lead into the sandbox, separated by commas",
        parse=parse_publish,
        adds=True,
        identity=_item,
        show=show_publish,
        asks=ask_publish,
    ),
    Setting(
        key="network.max_connections",
        option="--net-max-connections",
        variable="CORRAL_NET_MAX_CONNECTIONS",
        meaning="connections of one agent at once",
        parse=lambda value, _base: parse_count(
            value, 1, MAX_CONNECTIONS, "a number of connections", "256"
        ),
        default=_DEFAULT.connections,
        tighter="lower",
    ),
    Setting(
        key="network.rate",
        option="--net-rate",
        variable="CORRAL_NET_RATE",
        meaning="new connections of one agent a second",
        parse=parse_rate,
        default=_DEFAULT.rate,
        tighter="lower",
        show=show_number,
    ),
    Setting(
        key="network.max_bytes",
        option="--net-max-bytes",
        variable="CORRAL_NET_MAX_BYTES",
        meaning="bytes of one agent in both directions",
        parse=lambda value, _base: parse_amount(value, MIN_BYTES, MAX_BYTES, example="2GiB"),
        tighter="lower",
        show=show_size,
    ),
    Setting(
        key="network.idle",
        option="--net-idle",
        variable="CORRAL_NET_IDLE",
        meaning="close a connection after this time of silence",
        parse=lambda value, _base: parse_duration(value),
        default=_DEFAULT.idle,
        tighter="lower",
        show=show_duration,
    ),
    Setting(
        key="network.gateways",
        option="--gateway",
        variable="CORRAL_GATEWAYS",
        meaning="model APIs whose keys stay outside, separated by commas",
        parse=parse_gateway,
        adds=True,
        identity=_item,
        asks=ask_gateway,
    ),
    Setting(
        key="network.secrets",
        option="--secret",
        variable="CORRAL_SECRETS",
        meaning="credentials that stay outside, NAME or NAME@HOST, separated by commas",
        parse=parse_secret,
        adds=True,
        identity=_secret_name,
        show=show_secret,
        asks=ask_secret,
    ),
)
