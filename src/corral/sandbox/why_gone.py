"""Why a sandbox is gone: what it stands on, and what of that gave way first."""

from __future__ import annotations

import asyncio

from ..channel import Reason
from ..errors import SandboxGoneError
from ..proc import Process

_PRECEDENCE = 0.3  # seconds
_KILLED_HINT = (
    "Something on this host killed it. The kernel does that when memory runs out: see `dmesg`."
)


class WhyGone(Reason):
    """Watches all that a sandbox stands on, and knows what gave way first.

    culprit: the process whose end was the reason, if it was one.
    """

    culprit: Process | None = None

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

            def blame() -> None:
                if self.reason is None:
                    self.culprit = process
                self.set(reason)

            if serves and not process.killed:
                loop.call_later(_PRECEDENCE, blame)
            else:
                blame()

        process.exited.add_done_callback(ended)
