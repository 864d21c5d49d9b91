"""Why something that many tasks stand on is gone: told once, to all that wait for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from corral.errors import CorralError

T = TypeVar("T")


class Reason:
    """Why a sandbox is gone, once that is known."""

    def __init__(self) -> None:
        self._reason: asyncio.Future[CorralError] = asyncio.get_running_loop().create_future()

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
