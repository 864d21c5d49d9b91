"""A command on this host, in no jail, of which every system call is recorded or tried."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence

from ..errors import MissingProgramError
from ..host.facts import Facts
from ..proc import Helpers
from .run import End, Running, streams
from .seccomp.notify import Judge, Watched, watched


class _Direct(Running):
    """Without bubblewrap around it."""

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send the command a signal."""
        self._process.signal(number)


class WatchedHost:
    """Where one command is run. calls: what it called, once it runs."""

    def __init__(self, helpers: Helpers, judge: Judge, stack: contextlib.AsyncExitStack) -> None:
        self._helpers = helpers
        self._judge = judge
        self._stack = stack
        self._ends: list[End] = []
        self.calls: Watched | None = None

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Running:
        """Start the command, with the user's own environment, in the user's folder."""
        with contextlib.ExitStack() as theirs:
            ours, fds, master = streams(theirs, terminal)
            for end in ours:
                self._stack.callback(end.close)
            variables = {**os.environ, **(environment or {})}
            process, self.calls = await self._stack.enter_async_context(
                watched(self._helpers, argv, fds, variables, self._judge)
            )
        return _Direct(process, ours, master)


@contextlib.asynccontextmanager
async def watched_host(facts: Facts, judge: Judge) -> AsyncIterator[WatchedHost]:
    """A place for one command; on leaving, all that it started has ended. Raises HostError."""
    if facts.bwrap is None:
        raise MissingProgramError("bubblewrap is needed.", hint="Run `corral doctor --fix`.")
    root = facts.user.uid == 0
    async with (
        Helpers.start(facts.bwrap.argv, root=root, run_folder=None) as helpers,
        contextlib.AsyncExitStack() as stack,
    ):
        yield WatchedHost(helpers, judge, stack)
