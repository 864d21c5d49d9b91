"""Why a sandbox is gone: what it stands on, and what of that gave way first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ..errors import CorralError, SandboxGoneError
from ..proc import Process

T = TypeVar("T")

_PRECEDENCE = 0.3  # seconds
_KILLED_HINT = (
    "Something on this host killed it. The kernel does that when memory runs out: see `dmesg`."
)


class WhyGone:
    """Watches all that a sandbox stands on, and knows what gave way first."""

    def __init__(self) -> None:
        self._reason: asyncio.Future[CorralError] = asyncio.get_running_loop().create_future()

    def watch(self, process: Process, what: str, *, serves: bool = False) -> None:
        """The sandbox cannot live without this process.

        serves: it serves the machine, and ends by itself when that does, which then is the reason.
        """
        loop = asyncio.get_running_loop()

        def ended(_status: object) -> None:
            reason = SandboxGoneError(
                f"{what} is gone: {process.explain()}.",
                hint=_KILLED_HINT if process.killed else None,
                detail=process.last_words(),
            )
            if serves and not process.killed:
                loop.call_later(_PRECEDENCE, self.set, reason)
            else:
                self.set(reason)

        process.exited.add_done_callback(ended)

    def set(self, reason: CorralError) -> None:
        """The sandbox is gone because of this; only the first reason counts."""
        if not self._reason.done():
            self._reason.set_result(reason)

    @property
    def reason(self) -> CorralError | None:
        """Why it is gone, or None while it lives."""
        return self._reason.result() if self._reason.done() else None

    async def settle(self, seconds: float) -> None:
        """After an error: give its cause, a process that ended, so long to be noticed."""
        await asyncio.wait((self._reason,), timeout=seconds)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`, unless the sandbox is gone first."""
        task = asyncio.ensure_future(awaitable)
        task.add_done_callback(_looked_at)
        try:
            await asyncio.wait((task, self._reason), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not (self._reason.done() and task.exception() is not None):
                return task.result()
        finally:
            if not task.done():
                task.cancel()
        raise self._reason.result()


def _looked_at(task: asyncio.Future[T]) -> None:
    """Its error is told by whoever waits for it, or told better by the reason."""
    if not task.cancelled():
        task.exception()
