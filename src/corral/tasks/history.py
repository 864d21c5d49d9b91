"""What is kept of tasks: the last results, on disk for sandboxes that stay, else in memory.

logs/NAME/tasks/ID.json     one file a task, from when it is taken; the oldest that ended go
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from ..errors import TaskError
from ..paths import state_dir
from ..spec.files import write_atomically
from ..spec.values import NAME_PATTERN
from .model import ID_PATTERN, Result
from .summary import Summary

KEPT = 100  # tasks that ended
LOST = "the sandbox ended before it did."
_SUFFIX = ".json"

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it is kept. result: None until it has ended."""

    summary: Summary
    result: Result | None = None

    def known(self) -> Result:
        """Its result; one that has ended has one."""
        assert self.result is not None
        return self.result


class _Head(msgspec.Struct, frozen=True):
    """What is needed of an entry to list it."""

    summary: Summary


class History(Protocol):
    """Where entries are kept. What it does may take the disk's time, so threads may be at it."""

    def put(self, entry: Entry) -> None:
        """Keep this, in place of what is kept of the same task. Raises TaskError."""

    def get(self, number: str) -> Entry | None:
        """What is kept of a task."""

    def summaries(self) -> list[Summary]:
        """Of all, the oldest first."""


class Remembered:
    """A history that ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    def put(self, entry: Entry) -> None:
        """Keep this."""
        with self._lock:
            self._entries[entry.summary.id] = entry
            for old in _surplus(kept.summary for kept in self._entries.values()):
                self._entries.pop(old, None)

    def get(self, number: str) -> Entry | None:
        """What is kept of a task."""
        with self._lock:
            return self._entries.get(number)

    def summaries(self) -> list[Summary]:
        """Of all, the oldest first."""
        with self._lock:
            return _sorted(entry.summary for entry in self._entries.values())


class OnDisk:
    """A history that outlives the sandbox's keeper, which alone writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, Summary] | None = None

    def put(self, entry: Entry) -> None:
        """Keep this. Raises TaskError."""
        data = msgspec.json.encode(entry)
        try:
            with self._lock:
                known = self._index()
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(self._file(entry.summary.id), data, mode=0o600)
                known[entry.summary.id] = entry.summary
                for old in _surplus(known.values()):
                    self._file(old).unlink(missing_ok=True)
                    known.pop(old, None)
        except OSError as error:
            raise TaskError(
                f"the task cannot be written down in {self._folder}: {error.strerror}.",
                hint="Free some space there, or set CORRAL_STATE_DIR to a larger disk.",
            ) from error

    def get(self, number: str) -> Entry | None:
        """What is kept of a task; a file that is damaged is none."""
        if not ID_PATTERN.fullmatch(number):
            return None
        with self._lock:
            return self._read(number, Entry)

    def summaries(self) -> list[Summary]:
        """Of all, the oldest first."""
        with self._lock:
            return _sorted(self._index().values())

    def _index(self) -> dict[str, Summary]:
        """By id; to be called with the lock."""
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError):
                for path in self._folder.glob(f"*{_SUFFIX}"):
                    head = self._read(path.name.removesuffix(_SUFFIX), _Head)
                    if head is not None:
                        self._known[head.summary.id] = head.summary
        return self._known

    def _read(self, number: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode(self._file(number).read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return None

    def _file(self, number: str) -> Path:
        return self._folder / f"{number}{_SUFFIX}"


def folder_of(name: str) -> Path:
    """Where those of the sandbox `name` are kept; it need not be there."""
    if not NAME_PATTERN.fullmatch(name):
        raise TaskError("this is not the name of a sandbox.")
    return state_dir() / "logs" / name / "tasks"


def lost(summary: Summary, why: str) -> Entry:
    """One that had not ended when its keeper did."""
    now = round(time.time(), 3)
    result = Result(
        id=summary.id,
        agent=summary.agent,
        action=summary.action,
        status="lost",
        error=why,
        queued=summary.queued,
        began=summary.began,
        ended=now,
    )
    ended = msgspec.structs.replace(summary, state="ended", status="lost", ended=now)
    return Entry(summary=ended, result=result)


def _sorted(summaries: Iterable[Summary]) -> list[Summary]:
    return sorted(summaries, key=lambda summary: summary.queued)


def _surplus(summaries: Iterable[Summary]) -> list[str]:
    """Ids of those that are too many, the oldest first."""
    ended = [(summary.ended, summary.id) for summary in summaries if summary.ended is not None]
    ended.sort()
    return [number for _time, number in ended[: max(0, len(ended) - KEPT)]]
