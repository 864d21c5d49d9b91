"""The processes of ours that some connections lead to: the gateway and the interceptor."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from corral.policy import GATEWAY_DOMAIN, Host, Rule, Secret
from corral.policy.names import IPAddress, split_port

from .dial import dial_unix, said
from .outcome import Denied, Failed

GATEWAY_PORT = 80


class Doors:
    """Which connections go to a process of ours, and the way there."""

    def __init__(
        self,
        gateways: Collection[str],
        gateway: Callable[[int], Path] | None,
        secrets: Sequence[Secret],
        intercept: Path | None,
        allowed: Mapping[int, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """allowed: the names of gateways, of agents that may not use all of them."""
        self._gateways = {f"{name}.{GATEWAY_DOMAIN}" for name in gateways}
        self._allowed = {
            agent: {f"{name}.{GATEWAY_DOMAIN}" for name in names}
            for agent, names in allowed.items()
        }
        self._gateway = gateway
        self._intercept = intercept
        self.rules = tuple(_rule(secret, host) for secret in secrets for host in secret.hosts)

    def is_gateway(self, host: Host) -> bool:
        """Whether the name belongs to gateways, of this sandbox or not: it leads nowhere else."""
        return host.text == GATEWAY_DOMAIN or host.text.endswith(f".{GATEWAY_DOMAIN}")

    async def to_gateway(self, agent: int, host: Host, port: int) -> socket.socket:
        """A connection to the gateway process, as this agent. Raises Denied and Failed."""
        if host.text not in self._gateways or self._gateway is None:
            raise Denied("no gateway of that name")
        if host.text not in self._allowed.get(agent, self._gateways):
            raise Denied("this agent may not use that gateway")
        if port != GATEWAY_PORT:
            raise Denied(f"a gateway is reached on port {GATEWAY_PORT}, by plain HTTP")
        return await self._open(self._gateway(agent), "the gateway")

    async def to_interceptor(
        self, agent: int, host: Host, port: int, targets: Sequence[tuple[IPAddress, int]]
    ) -> socket.socket:
        """A connection to the interceptor, told where it may dial to. Raises Failed.

        The line is {"agent", "name", "port", "addresses"}, and "to_port" where the policy's own
        addresses have another one.
        """
        if self._intercept is None:
            raise Failed("the interceptor is not there")
        to_port = targets[0][1]
        line: dict[str, object] = {
            "agent": agent,
            "name": host.text,
            "port": port,
            "addresses": [str(address) for address, each in targets if each == to_port],
        }
        if to_port != port:
            line["to_port"] = to_port
        sock = await self._open(self._intercept, "the interceptor")
        try:
            sock.send(msgspec.json.encode(line) + b"\n")  # a fresh socket takes it whole
        except OSError as error:
            sock.close()
            raise self._gone("the interceptor", error) from error
        return sock

    async def _open(self, path: Path, name: str) -> socket.socket:
        try:
            return await dial_unix(path)
        except OSError as error:
            raise self._gone(name, error) from error

    @staticmethod
    def _gone(name: str, error: OSError) -> Failed:
        """A process of ours is gone, of which its owner tells; the sandbox goes on without it."""
        if error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EPIPE, errno.ECONNRESET):
            return Failed(f"{name} has ended")
        return Failed(f"{name} could not be reached: {said(error)}")


def _rule(secret: Secret, text: str) -> Rule:
    host, port = split_port(text)
    return Rule(host=host, port=port or 443, text=f"secret {secret.name}")
