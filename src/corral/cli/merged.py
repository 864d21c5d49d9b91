"""All that is kept of what agents did, in the order of time: their transcripts, and the gateway's.

Lines come from files that a keeper and a gateway write; each file is in order by itself.
"""

from __future__ import annotations

import heapq
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..gateway.config import TRANSCRIPT
from ..journal import READ_SIZE, Lines, older, watched
from ..sandbox.gateway import existing_folder

Record = dict[str, Any]


class Merged:
    """Those of the sandboxes called `name`. folder: of their logs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._files: dict[Path, Lines] = {}
        self._watched: dict[Path, int] = {}
        self._poll = select.poll()

    def _paths(self) -> list[Path]:
        found = sorted(self._folder.glob("agent-*.jsonl"))
        gateway = existing_folder(self._name)
        return found if gateway is None else [*found, gateway / TRANSCRIPT]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not any(path.exists() or older(path).exists() for path in self._paths())

    def records(self, *, follow: bool) -> Iterator[Record]:
        """Those that there are; with `follow` also what comes, until the folder goes."""
        try:
            while True:
                if follow:
                    self._watch()
                for path in self._paths():
                    self._files.setdefault(path, Lines(path))
                streams = [_parsed(lines.more()) for lines in self._files.values()]
                yield from heapq.merge(*streams, key=_time)
                if not follow or not self._folder.is_dir():
                    return
                for fd, _events in self._poll.poll():  # waits
                    os.read(fd, READ_SIZE)
        finally:
            for lines in self._files.values():
                lines.close()
            for fd in self._watched.values():
                os.close(fd)

    def _watch(self) -> None:
        """Before looking: so nothing is missed."""
        for path in {self._folder, *(each.parent for each in self._paths())} - set(self._watched):
            fd = self._watched[path] = watched(path)
            self._poll.register(fd, select.POLLIN)


def _parsed(lines: Iterator[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _time(record: Record) -> float:
    moment = record.get("time")
    return float(moment) if isinstance(moment, int | float) else 0.0
