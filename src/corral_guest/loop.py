"""The supervisor's event loop: epoll, one callback a file descriptor, a few timers.

One thread, no tasks: under emulation every import and every thread costs, and PID 1 has little to
do but move bytes.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Loop:
    """Calls back when watched descriptors are ready, until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._interest: dict[int, int] = {}
        self._running = True
        self._tick: Callable[[], object] | None = None
        self._interval = self._due = 0.0
        self._later: list[tuple[float, Callable[[], object]]] = []

    def watch(self, fd: int, interest: int, callback: Callable[[int], object]) -> None:
        """Call `callback(events)` when fd is ready for `interest`; replaces an earlier watch."""
        known = self._interest.get(fd)
        self._callbacks[fd] = callback
        if known is None:
            self._epoll.register(fd, interest)
        elif known != interest:
            self._epoll.modify(fd, interest)
        self._interest[fd] = interest

    def forget(self, fd: int) -> None:
        """Stop watching fd; a descriptor that is not watched is no error."""
        if self._interest.pop(fd, None) is not None:
            del self._callbacks[fd]
            self._epoll.unregister(fd)

    def every(self, seconds: float, tick: Callable[[], object]) -> None:
        """Call `tick` so often; later ones replace earlier ones."""
        self._tick, self._interval = tick, seconds
        self._due = time.monotonic() + seconds

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Call `action` once, after so long."""
        self._later.append((time.monotonic() + seconds, action))

    def _wait(self) -> float | None:
        """Seconds until a timer is due; calls those that are."""
        if self._tick is None and not self._later:
            return None
        now = time.monotonic()
        due = [action for when, action in self._later if when <= now]
        self._later = [each for each in self._later if each[0] > now]
        if self._tick is not None and self._due <= now:
            self._due = now + self._interval
            due.append(self._tick)
        for action in due:
            action()
        if due:
            return 0.0  # what they have to say is written after this turn
        times = [when for when, _action in self._later]
        return min(times if self._tick is None else [*times, self._due]) - now

    def stop(self) -> None:
        """Leave `run` after the current callback."""
        self._running = False

    def run(self, after_turn: Callable[[], None]) -> None:
        """Dispatch until `stop`. after_turn: called each time what was ready has been dealt with.

        A callback may be called once when its descriptor is not ready: when an earlier one of the
        same turn closed a ready descriptor and the number was taken again.
        """
        while self._running:
            for fd, events in self._epoll.poll(self._wait()):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            after_turn()
