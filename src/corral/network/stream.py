"""What the engine needs of a stream to the guest; `corral.channel` has it."""

from __future__ import annotations

from typing import Protocol


class Stream(Protocol):
    """One byte stream to and from the guest. The methods raise CorralError when it is gone."""

    async def read(self, limit: int = 1 << 16) -> bytes:
        """The next bytes; b"" at the end."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of data, as fast as the guest takes it."""

    async def end(self) -> None:
        """No more data comes from this side."""

    def reset(self, reason: str = "") -> None:
        """Give it up in both directions."""
