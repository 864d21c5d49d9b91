"""From merged values to the network policy, and to the gateways and secrets that a sandbox has."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import structs

from .. import extras
from ..errors import ConfigError
from ..policy import Address, Gateway, Limits, Mode, Network, Publish, Rule, Secret
from .gateways import BUILT_IN, Doors, unknown_gateway
from .keys import Reach, check_key, env_key
from .layers import Entry, Merged, scalar
from .network_settings import NamedRules, NamedSecret, secret_host, show_publish
from .text import printable

_HTTP = "http://"


def resolve_network(merged: Merged, warnings: list[str]) -> Network:
    """The policy. Raises ConfigError; what has no effect is added to `warnings`."""
    mode = cast("Mode", scalar(merged, "network.mode"))
    network = Network(
        mode=mode,
        allow=_rules(merged["network.allow"]),
        deny=_rules(merged["network.deny"]),
        ports=cast("tuple[int, ...]", scalar(merged, "network.ports")),
        addresses=tuple(cast("Address", entry.value) for entry in merged["network.hosts"]),
        publish=_publish(merged["network.publish"]),
        limits=Limits(
            connections=cast("int", scalar(merged, "network.max_connections")),
            rate=cast("float", scalar(merged, "network.rate")),
            total=cast("int | None", scalar(merged, "network.max_bytes")),
            idle=cast("float", scalar(merged, "network.idle")),
        ),
    )
    if mode == "none" and network.allow:
        (entry,) = merged["network.mode"]
        warnings.append(
            f"no host can be reached, whatever network.allow says: network.mode is none (from "
            f"{entry.origin})."
        )
    if mode == "allow" and not network.allow:
        warnings.append("network.mode is allow, and network.allow names no host.")
    for rule in network.allow:
        if _is_loopback(rule.host):
            warnings.append(
                f"--allow {printable(rule.text, 80)} leads nowhere: in the sandbox that is the "
                "sandbox itself. For a server on this machine: --host here.test=127.0.0.1 and "
                "--allow here.test:PORT."
            )
    return network


def resolve_gateways(
    merged: Merged, doors: Doors, environ: Mapping[str, str], reach: Reach, warnings: list[str]
) -> tuple[Gateway, ...]:
    """The gateways that were asked for; ConfigError when one is not known or has no key."""
    found: dict[str, Gateway] = {}
    for entry in merged["network.gateways"]:
        name = str(entry.value)
        gateway = doors.gateways.get(name) or BUILT_IN.get(name)
        if gateway is None:
            raise unknown_gateway(name, doors.gateways)
        if name in found:
            continue
        if gateway.key is not None:
            key = check_key(gateway.key, f"the gateway {name}", environ, reach)
            gateway = structs.replace(gateway, key=key)
            if _in_clear(gateway.upstream):
                warnings.append(
                    f"the gateway {name} sends its key to {printable(gateway.upstream)} without "
                    "encryption."
                )
        found[name] = gateway
    return tuple(found.values())


def resolve_secrets(
    merged: Merged, doors: Doors, environ: Mapping[str, str], reach: Reach
) -> tuple[Secret, ...]:
    """The secrets that were asked for, one for each name, with all the hosts it was given."""
    hosts: dict[str, tuple[str, ...]] = {}
    for entry in merged["network.secrets"]:
        named = cast("NamedSecret", entry.value)
        given = tuple(secret_host(rule) for rule in named.hosts)
        table = doors.secrets.get(named.name)
        if not given and table is None:
            raise ConfigError(
                f"the secret {named.name} (from {entry.origin}) has no hosts.",
                hint=f"Say where it may go, --secret {named.name}@HOST, or in your config.toml: "
                f"[secrets.{named.name}] and hosts = [...].",
            )
        wanted = given or (table.hosts if table else ())
        hosts[named.name] = tuple(dict.fromkeys((*hosts.get(named.name, ()), *wanted)))
    if hosts and importlib.util.find_spec("mitmproxy") is None:
        raise ConfigError(
            f"the secret {next(iter(hosts))} needs a library that is not installed: mitmproxy.",
            hint=f"Install it: {extras.install('intercept')}",
        )
    found = []
    for name, allowed in hosts.items():
        secret = doors.secrets.get(name) or Secret(
            name=name, hosts=(), header="authorization", key=env_key(name)
        )
        key = check_key(secret.key, f"the secret {name}", environ, reach)
        found.append(structs.replace(secret, hosts=allowed, key=key))
    return tuple(found)


def ports_taken(
    network: Network, gateways: Sequence[Gateway], secrets: Sequence[Secret]
) -> list[str]:
    """A sentence for each published port on which no program of the sandbox can listen.

    On the ports that lead outwards corral's own listeners are, on every address of the sandbox.
    """
    taken = {80} if gateways else set()
    if network.mode != "none":
        taken.update(network.ports)
        taken.update(rule.port for rule in network.allow if rule.port is not None)
    for secret in secrets:
        taken.update(int(host.partition(":")[2] or 443) for host in secret.hosts)
    return [
        f"--publish {show_publish(each)}: no program in the sandbox can listen on port "
        f"{each.guest_port}, where its connections outwards are taken; choose another one there."
        for each in network.publish
        if each.guest_port in taken
    ]


def refuse_both(
    variables: Sequence[str], gateways: Sequence[Gateway], secrets: Sequence[Secret]
) -> None:
    """ConfigError when a variable for the command is one that a gateway or secret keeps out."""
    kept = {secret.name: f"the secret {secret.name}" for secret in secrets}
    for gateway in gateways:
        if gateway.key is not None and gateway.key.kind == "env":
            kept[gateway.key.value[0]] = f"the gateway {gateway.name}"
    for name in variables:
        if name in kept:
            raise ConfigError(
                f"{name} is to be passed into the sandbox, and {kept[name]} is there to keep it "
                "out.",
                hint=f"Leave {name} out of --env, run.env and run.pass_env.",
            )


def _rules(entries: Sequence[Entry]) -> tuple[Rule, ...]:
    """The rules of all entries; of those that mean the same the first."""
    rules: dict[tuple[str, int | None], Rule] = {}
    for entry in entries:
        for rule in cast("NamedRules", entry.value).rules:
            rules.setdefault((rule.host, rule.port), rule)
    return tuple(rules.values())


def _publish(entries: Sequence[Entry]) -> tuple[Publish, ...]:
    taken: dict[tuple[str, int], Publish] = {}
    free: list[Publish] = []
    for entry in entries:
        wanted = cast("Publish", entry.value)
        other = taken.setdefault((wanted.address, wanted.port), wanted)
        if wanted.port == 0:
            free.append(wanted)
        elif other != wanted:
            raise ConfigError(
                f"port {wanted.port} of {wanted.address} is to lead to two ports of the sandbox: "
                f"{show_publish(other)} and {show_publish(wanted)} (from {entry.origin}).",
                hint="Leave one of them out.",
            )
    fixed = [publish for publish in taken.values() if publish.port]
    return (*fixed, *dict.fromkeys(free))


def _is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_network(host).is_loopback
    except ValueError:
        return False


def _in_clear(upstream: str) -> bool:
    """Whether a key would cross a network that is not this machine's own unencrypted."""
    import ipaddress
    from urllib.parse import urlsplit

    host = urlsplit(upstream).hostname or ""
    if not upstream.startswith(_HTTP) or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
