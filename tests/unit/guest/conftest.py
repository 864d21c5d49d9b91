"""Guest code run on the host, without a machine: over real pipes, terminals and processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from corral_guest import wire
from corral_guest.loop import READ, Loop


class Bench:
    """A loop and both ends of a channel, driven turn by turn; stream 2 is open on both sides."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.guest, self.host = wire.Connection(), wire.Connection()
        self.guest.open(2)
        self.host.open(2)
        self._always_ready = os.eventfd(1)

    def turn(self, times: int = 1) -> None:
        """Let the loop deal with what is ready, without ever waiting."""
        for _ in range(times):
            self.loop._running = True
            self.loop.watch(self._always_ready, READ, lambda _events: None)
            self.loop.run(self.loop.stop)

    def heard(self, *, consume: bool = True) -> list[wire.Event]:
        """What the host hears; its credit for it goes back unless told otherwise."""
        events = list(self.host.receive(self.guest.take_output()))
        for event in events:
            if consume and isinstance(event, wire.Data):
                self.host.consumed(event.stream, len(event.data))
        return events

    def answer(self) -> list[wire.Event]:
        """What the guest hears."""
        return list(self.guest.receive(self.host.take_output()))

    def close(self) -> None:
        os.close(self._always_ready)
        self.loop._epoll.close()


def carried(events: list[wire.Event]) -> bytes:
    """All bytes of the Data among events."""
    return b"".join(event.data for event in events if isinstance(event, wire.Data))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()
