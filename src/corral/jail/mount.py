"""One mount of a resolved jail."""

from __future__ import annotations

from msgspec import Struct

from ..proc.bwrap import Access, Bind, Memory, Step


class Mount(Struct, frozen=True, kw_only=True):
    """One mount of a jail. real: of the host, None for memory. size, mode: of memory."""

    target: str
    real: str | None
    folder: bool = True
    writable: bool = False
    size: int | None = None
    mode: int = 0o755

    @property
    def step(self) -> Step:
        """For bubblewrap."""
        if self.real is None:
            return Memory(self.target, self.size, self.mode)
        access = Access.WRITABLE if self.writable else Access.READ_ONLY
        return Bind(self.real, self.target, access, pinned=True)
