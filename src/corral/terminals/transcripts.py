"""The transcript of each agent: what it did, in the order of time, one JSON object a line.

    logs/NAME/agent-2.jsonl    and an older part, .jsonl.1

Every line has `time` (seconds since 1970), `agent` and `kind`:

    started   command (its number), argv, session ("" without one)
    output    command, session, text: what its terminal was given, see `emulator`; or task, stream,
              text: what a task wrote, printable
    ended     command, session, status (null when that is not known), seconds
    agent     state, reason: the agent is in another state
    task      task (its id), state: began or ended, and then status, exit_status, seconds
    files     task, added, modified, deleted: paths that changed meanwhile; repository, truncated

What models were asked is in the gateway's own transcript; a reader merges the two by time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..events import json_line
from ..journal import Journal, Syncing

LIMIT = 8 << 20  # bytes of one file; there are two of an agent
_TOGETHER_SECONDS = 0.25  # output within that becomes one line
_TOGETHER = 4096  # characters of it


def path_of(folder: Path, agent: int) -> Path:
    """An agent's file in the folder of logs."""
    return folder / f"agent-{agent}.jsonl"


class _Output:
    """What a command has written and is not written down yet."""

    def __init__(self, command: int, session: str) -> None:
        self.command, self.session = command, session
        self.time = time.time()
        self.parts: list[str] = []
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None


class Transcripts:
    """Those of one sandbox. folder: of its logs, made if missing; may raise HostError."""

    def __init__(self, folder: Callable[[], Path], syncing: Syncing) -> None:
        self._folder = folder
        self._syncing = syncing
        self._journals: dict[int, Journal] = {}
        self._outputs: dict[int, _Output] = {}

    def record(self, agent: int, kind: str, **fields: Any) -> None:
        """Write it down, after all that the agent's terminals have shown so far."""
        self.flush(agent)
        self._write(agent, kind, time.time(), fields)

    def output(self, agent: int, command: int, session: str, text: str) -> None:
        """What a terminal was given; what comes shortly after it may be in the same line."""
        found = self._outputs.get(agent)
        if found is not None and (found.command, found.session) != (command, session):
            self.flush(agent)
            found = None
        if found is None:
            found = self._outputs[agent] = _Output(command, session)
            loop = asyncio.get_running_loop()
            found.timer = loop.call_later(_TOGETHER_SECONDS, self.flush, agent)
        found.parts.append(text)
        found.size += len(text)
        if found.size >= _TOGETHER:
            self.flush(agent)

    def flush(self, agent: int) -> None:
        """Write down what its terminals have shown so far."""
        found = self._outputs.pop(agent, None)
        if found is None:
            return
        if found.timer is not None:
            found.timer.cancel()
        fields = {"command": found.command, "session": found.session, "text": "".join(found.parts)}
        self._write(agent, "output", found.time, fields)

    def _write(self, agent: int, kind: str, moment: float, fields: dict[str, Any]) -> None:
        journal = self._journals.get(agent)
        if journal is None:
            path = path_of(self._folder(), agent)
            journal = Journal(path, limit=LIMIT, syncing=self._syncing)
            self._journals[agent] = journal
        line = {"time": round(moment, 3), "agent": agent, "kind": kind, **fields}
        journal.write(json_line(line))

    @property
    def failure(self) -> str | None:
        """What went wrong with a file, or None."""
        return next((each.failure for each in self._journals.values() if each.failure), None)

    def close(self) -> None:
        """No more comes."""
        for agent in list(self._outputs):
            self.flush(agent)
        for journal in self._journals.values():
            journal.close()
