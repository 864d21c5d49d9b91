"""What happened on the network, told and kept, without being flooded.

A guest can ask for thousands of connections a second that are denied. So the refusals of each
agent have a bucket; those beyond it are counted, and the next one that is told says how many.
"""

from __future__ import annotations

import time

import msgspec

from corral.events import Connection, Report
from corral.journal import Journal

RATE = 10.0  # refusals a second of each agent that are told
BURST = 100


class Ledger:
    """Tells and writes `Connection` events."""

    def __init__(self, report: Report, journal: Journal | None) -> None:
        self._report = report
        self._journal = journal
        self._buckets: dict[int, _Bucket] = {}
        self._encoder = msgspec.json.Encoder()

    def tell(self, event: Connection) -> None:
        """Tell and keep it, unless it is one refusal of too many."""
        if event.verdict != "allowed":
            bucket = self._buckets.setdefault(event.agent, _Bucket())
            if not bucket.take(time.monotonic()):
                bucket.missed = event
                bucket.count += 1
                return
            if bucket.count:
                event = _and_more(event, bucket.count)
                bucket.count = 0
        self._say(event)

    def close(self) -> None:
        """Tell what was only counted."""
        for bucket in self._buckets.values():
            if bucket.missed is not None and bucket.count:
                self._say(_and_more(bucket.missed, bucket.count - 1))
                bucket.count = 0

    def _say(self, event: Connection) -> None:
        self._report(event)
        if self._journal is not None:
            self._journal.write(self._encoder.encode(event) + b"\n")


class _Bucket:
    def __init__(self) -> None:
        self.tokens = float(BURST)
        self.at = time.monotonic()
        self.count = 0
        self.missed: Connection | None = None

    def take(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now - self.at) * RATE)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def _and_more(event: Connection, count: int) -> Connection:
    if not count:
        return event
    return msgspec.structs.replace(event, reason=f"{event.reason} ({count} more not listed)")
