"""What the guest is told of the network, and what programs there find out about it. Pure."""

from __future__ import annotations

import ipaddress
from typing import assert_never

from corral_guest.names import NAME_SERVER

from ..policy import GATEWAY_DOMAIN, Gateway, Rule
from ..spec import Spec

GATEWAY_PORT = 80
SECRET_PORT = 443  # of a secret's host that names none
PLACEHOLDER = "held-by-corral-on-the-host"
# Of all agents together; the channel has 1024 streams (corral_guest.frames.MAX_STREAMS), of which
# commands need some.
_CONNECTIONS = 640
_EVERYTHING = ["0.0.0.0/0", "::/0"]


def setup(spec: Spec, agents: int) -> dict[str, object] | None:
    """The network of one of so many agents (see corral_guest.network); None for none at all."""
    listening = ports(spec)
    if not listening:
        return None
    return {
        "ports": list(listening),
        "networks": _networks(spec),
        "connections": _CONNECTIONS // agents,
    }


def ports(spec: Spec) -> tuple[int, ...]:
    """On which connections are taken at all; elsewhere programs are refused at once."""
    wanted: set[int] = set()
    if spec.network.mode != "none":
        wanted.update(spec.network.ports)
        wanted.update(rule.port for rule in spec.network.allow if rule.port is not None)
    if spec.gateways:
        wanted.add(GATEWAY_PORT)
    for secret in spec.secrets:
        for host in secret.hosts:
            _name, _, port = host.partition(":")
            wanted.add(int(port) if port else SECRET_PORT)
    return tuple(sorted(wanted))


def _networks(spec: Spec) -> list[str]:
    """The addresses that programs may dial as such."""
    if spec.network.mode == "internet":
        return list(_EVERYTHING)
    if spec.network.mode == "none":
        return []
    found = [network for rule in spec.network.allow if (network := _literal(rule)) is not None]
    return list(dict.fromkeys(found))


def _literal(rule: Rule) -> str | None:
    """The network of a rule that names no host; None also for loopback, which is the agent's."""
    try:
        network = ipaddress.ip_network(rule.host)
    except ValueError:
        return None
    return None if network.is_loopback else str(network)


def resolver(spec: Spec) -> str:
    """/etc/resolv.conf."""
    if not ports(spec):
        return "# this sandbox has no network\n"
    return f"# every name leads to corral on the host, which decides\nnameserver {NAME_SERVER}\n"


def gateway_environment(gateways: tuple[Gateway, ...]) -> dict[str, str]:
    """The variables by which programs find model APIs; of two of a kind, the first."""
    found: dict[str, str] = {}
    for gateway in reversed(gateways):
        url = f"http://{gateway.name}.{GATEWAY_DOMAIN}"
        match gateway.dialect:
            case "anthropic":
                found |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": PLACEHOLDER}
            case "openai":
                found |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": PLACEHOLDER}
            case _:
                assert_never(gateway.dialect)
    return found
