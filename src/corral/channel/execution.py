"""One command running in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from corral.channel.channel import Channel
from corral.channel.stream import Stream
from corral.errors import ChannelError, CorralError

END_TIMEOUT = 20.0  # seconds


class Execution:
    """A command: its streams, its status.

    stdin, stdout, stderr: byte streams; with a terminal there is no stderr. Read stdout and stderr
    to their ends: they are complete when the status is known.
    """

    def __init__(
        self,
        channel: Channel,
        number: int,
        streams: dict[str, Stream],
        status: asyncio.Future[int],
        or_lost: Callable[[Awaitable[int]], Awaitable[int]],
    ) -> None:
        self._channel = channel
        self._number = number
        self._status = status
        self._or_lost = or_lost
        self.stdin = streams["stdin"]
        self.stdout = streams["stdout"]
        self.stderr = streams.get("stderr")

    @property
    def status(self) -> int | None:
        """The exit status once it is known; None while it runs, and when the sandbox is gone."""
        done = self._status.done() and not self._status.cancelled()
        return self._status.result() if done and self._status.exception() is None else None

    async def wait(self) -> int:
        """The exit status as a shell gives it (128+n for signal n). Raises SandboxGoneError."""
        # Shielded: who stops waiting does not change how the command ends.
        return await self._or_lost(asyncio.shield(self._status))

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the command, or to its whole process group."""
        if not self._status.done():
            await self._channel.call(
                "signal", {"exec": self._number, "signal": number, "group": group}, timeout=20
            )

    async def end(self) -> None:
        """Kill it and everything that it has started, and wait until nothing of that is left.

        What it left behind is reached as well, also when it has ended itself: daemons that forked
        twice, sessions of their own. Then `wait` has its status. Raises ChannelError when something
        does not end in END_TIMEOUT seconds.
        """
        await self._channel.call("end", {"exec": self._number}, timeout=END_TIMEOUT)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        if not self._status.done():
            await self._channel.call(
                "resize", {"exec": self._number, "rows": rows, "columns": columns}, timeout=20
            )


class Abandoned:
    """Commands whose start nobody waits for any more: each is ended, also one that begins later."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()

    def given_up(self, number: int, error: BaseException) -> None:
        """The start of a command failed by this: it is ended if it may yet begin.

        That is so when its start was cancelled, or was not answered in time; not when it was
        refused, or never asked for.
        """
        if self._channel.failure is None and isinstance(
            error, asyncio.CancelledError | ChannelError
        ):
            task = asyncio.create_task(self._end(number), name=f"abandoned-{number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end(self, number: int) -> None:
        # Without a limit: a machine that is paused hears the start and this when it goes on. The
        # end of the channel ends this, too.
        with contextlib.suppress(CorralError):
            await self._channel.call("end", {"exec": number})
