"""What a sandbox leaves behind that the host's own tools would obey, told at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from threading import Thread

from ..host import repository
from ..plan import Plan
from ..spec import Spec
from ..spec.text import printable

MAX_TOLD = 20

_States = dict[str, tuple[object, ...]]


class Watch:
    """Compares writable folders before and after. Start it before the guest can write.

    The look before is taken in a thread of its own while the guest boots, so it costs no time.
    """

    def __init__(self, spec: Spec, plan: Plan) -> None:
        self._roots = [share.source for share in spec.shares if share.writable]
        self._roots += [
            each.source for agent in spec.agents for each in agent.shares if each.writable
        ]
        self._absent: list[str] = []
        # A review judges all of what is changed in a snapshot.
        direct = {agent.number for agent in spec.agents if not spec.snapshot(agent)}
        if direct and not spec.workspace.read_only:
            self._roots.append(spec.workspace.on_host)
            self._absent = [
                path for agent in plan.agents if agent.number in direct for path in agent.watched
            ]
        self._before: Future[_States] = Future()
        Thread(target=self._look, daemon=True, name="watch").start()

    def _look(self) -> None:
        try:
            self._before.set_result(self._now())
        except BaseException as error:
            self._before.set_exception(error)

    def _now(self) -> _States:
        states: _States = {}
        for root in self._roots:
            states |= repository.snapshot(root)
        return states

    async def ready(self) -> None:
        """Wait until the look before is taken."""
        await asyncio.wrap_future(self._before)

    def changed(self) -> list[str]:
        """What appeared or changed; the guest may have chosen names."""
        paths = [path for path in self._absent if os.path.lexists(path)]
        with contextlib.suppress(OSError):
            found = repository.changed(self._before.result(), self._now())
            paths += [path for path in found if not _covered(path, paths)]
        return paths

    def notices(self) -> Iterator[str]:
        """One sentence for each of them."""
        yield from told(self.changed())


def told(paths: Sequence[str]) -> Iterator[str]:
    """One sentence for each thing that `changed`."""
    for path in paths[:MAX_TOLD]:
        yield (
            f"{printable(path)} appeared or changed: git and other tools of yours may run "
            "what it says. Read it before you use them here."
        )
    if len(paths) > MAX_TOLD:
        yield f"{len(paths) - MAX_TOLD} further files that git obeys appeared or changed."


def _covered(path: str, others: list[str]) -> bool:
    return any(path == other or path.startswith(other + "/") for other in others)
