"""What one agent uses of the network, against its limits."""

from __future__ import annotations

import time

from corral.policy import Limits

from .outcome import Denied


class Usage:
    """Connections, their rate and the bytes of one agent."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0
        self.total = 0
        self._next = 0.0  # when a bucket that is never empty would be full again, in seconds

    def enter(self) -> bool:
        """One more connection is open; False when there are too many."""
        if self.open >= self.limits.connections:
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        """One connection fewer."""
        self.open -= 1

    def delay(self, now: float | None = None) -> float:
        """Take a token of the bucket: how many seconds the connection has to wait for it.

        The bucket holds as many tokens as are added in one second, and at least one. Who waits is
        bounded by the connections that may be open (generic cell rate algorithm, ITU-T I.371).
        """
        moment = time.monotonic() if now is None else now
        step = 1 / self.limits.rate
        slack = max(1.0, step) - step
        self._next = max(self._next, moment)
        wait = max(0.0, self._next - slack - moment)
        self._next += step
        return wait

    def count(self, size: int) -> None:
        """So many bytes more. Raises Denied when that is, or was, too many."""
        self.total += size
        if self.limits.total is not None and self.total > self.limits.total:
            raise Denied("the limit of bytes is reached")
