"""The ports of this machine that lead into a sandbox."""

from __future__ import annotations

from ..errors import ConfigError
from ..policy.names import BadName
from ..policy.rules import parse_publish
from ..sandbox.ports import Port, Publishing

__all__ = ["Port", "Ports"]


class Ports:
    """The published ports of a sandbox.

    Each leads to the loopback of the sandbox, as long as that runs. All of it raises PortError when
    a port cannot be had, ConfigError for what is none, and SandboxGoneError.
    """

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing

    async def list(self) -> tuple[Port, ...]:
        """Those that are published: address and port here, guest_port there, and their bytes."""
        return await self._publishing.published()

    async def add(self, port: int | str) -> Port:
        """Publish one more: a port, or [HOST:]PORT[:GUEST].

        PORT 0 is any that is free here; see the answer. Without HOST only this machine reaches it.
        """
        try:
            wanted = parse_publish(str(port))
        except BadName as error:
            raise ConfigError(str(error), hint="Write [HOST:]PORT[:GUEST].") from error
        return await self._publishing.publish(wanted)

    async def remove(self, port: int | Port) -> None:
        """Publish it no more; connections through it are reset. port: of this machine."""
        if isinstance(port, Port):
            await self._publishing.unpublish(port.port, port.address)
        else:
            await self._publishing.unpublish(port)
