"""Making forks of a kept sandbox: their names, their records, their keepers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import CorralError, SandboxStateError
from ..events import Event, Notice, Report
from ..host.copies import remove_tree
from . import checkpoints
from .client import connect
from .launch import launch
from .messages import Forked
from .store import Record

_AT_ONCE = 2  # copies that start at the same time: more would only wait for a processor


def fork(
    name: str,
    count: int,
    report: Report,
    *,
    waiting: Callable[[Record], Callable[[], None]] | None = None,
) -> list[str]:
    """Have `count` copies of the sandbox go on from where it is; their names, once they are up.

    waiting: gives what to call when another command holds the lock of a record. When a copy does
    not come up, it is removed with those that had not begun, those that are up run on, and what
    it failed with is raised. Raises CheckpointError, SandboxStateError and what a start raises.
    """
    source = Record.find(name)
    records = [Record(each) for each in checkpoints.free_names(name, count)]
    with contextlib.ExitStack() as held:
        for record in records:
            held.enter_context(record.changing(waiting(record) if waiting else None))
            _clear(record)
        saved: Path | None = None
        up: list[Record] = []
        try:
            request = source.request()
            forked = asyncio.run(_saved(name, [record.name for record in records]))
            saved = Path(forked.folder)
            if forked.notice is not None:
                report(Notice(level="warning", message=forked.notice))
            for record in records:
                record.write_request(checkpoints.forked_request(request, record))
            _launch(records, saved, report, up)
        finally:
            for record in records:
                if record not in up and not record.is_kept():
                    record.remove()
            if saved is not None:
                remove_tree(saved)
    return [record.name for record in records]


async def _saved(name: str, names: Sequence[str]) -> Forked:
    async with connect(name) as kept:
        return await kept.fork(names)


def _clear(record: Record) -> None:
    """What a fork left that was ended half way."""
    if record.exists():
        raise SandboxStateError(
            f"a sandbox {record.name} was made meanwhile.", hint="Try again: it gets other names."
        )
    record.drop(checkpoints.WORKSPACE)


def _launch(records: Sequence[Record], saved: Path, report: Report, up: list[Record]) -> None:
    """Start every copy; raises what the first that fails did, once all have come to an end.

    up: gets those that came up, whatever became of them since.
    """

    def one_line(event: Event) -> None:
        if isinstance(event, Notice):
            report(event)

    tell = report if len(records) == 1 else one_line

    def start(record: Record) -> None:
        launch(record, os.environ, tell, saved)
        up.append(record)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        starts = [pool.submit(start, record) for record in records]
        errors = [error for each in starts if (error := each.exception()) is not None]
    if errors:
        if up and isinstance(errors[0], CorralError):
            names = ", ".join(record.name for record in records if record in up)
            report(Notice(level="warning", message=f"these copies are up: {names}"))
        raise errors[0]
