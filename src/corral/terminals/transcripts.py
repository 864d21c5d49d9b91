"""The transcript of each agent: what it did, in the order of time, one JSON object a line.

    logs/NAME/agent-2.jsonl    and an older part, .jsonl.1

Every line has `time` (seconds since 1970), `agent` and `kind`:

    started   command (its number), argv, session ("" without one)
    output    command, session, text: what its terminal was given, see `emulator`; or task, stream,
              text: what a task wrote, printable
    ended     command, session, status (null when that is not known), seconds
    agent     state, reason: the agent is in another state
    task      task (its id), state: began or ended, and then status, exit_status, seconds
    files     task, added, modified, deleted: paths that changed meanwhile; repository, truncated;
              or command, obeyed: what appeared or changed that git and the like obey; truncated

What models were asked is in the gateway's own transcript; a reader merges the two by time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import CorralError
from ..events import json_line
from ..journal import Journal, Syncing
from ..spec.text import harmless

LIMIT = 8 << 20  # bytes of one file; there are two of an agent
_TOGETHER_SECONDS = 0.25  # output within that becomes one line
_TOGETHER = 4096  # characters of it
_SHOWN_ARGUMENTS, _SHOWN_CHARACTERS = 32, 200


class Working(Protocol):
    """A command that is written down."""

    @property
    def number(self) -> int:
        """Which one of the sandbox."""

    @property
    def agent(self) -> int:
        """Whose it is."""

    @property
    def argv(self) -> tuple[str, ...]:
        """What it is, `shortened`."""


def shortened(argv: Sequence[str]) -> tuple[str, ...]:
    """argv as it is shown: printable, and not long."""
    return tuple(harmless(argument[:_SHOWN_CHARACTERS]) for argument in argv[:_SHOWN_ARGUMENTS])


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
    """Those of one sandbox. folder: of its logs, made if missing; may raise HostError.

    Nothing they do raises: an agent works on when its transcript cannot be written.
    """

    def __init__(self, folder: Callable[[], Path], syncing: Syncing) -> None:
        self._folder = folder
        self._syncing = syncing
        self._journals: dict[int, Journal] = {}
        self._outputs: dict[int, _Output] = {}
        self._failure: str | None = None

    def started(self, command: Working, session: str = "") -> None:
        """A command runs. session: of which it is the program."""
        told = {"command": command.number, "argv": command.argv, "session": session}
        self.record(command.agent, "started", **told)

    def ended(
        self, command: Working, status: int | None, seconds: float, session: str = ""
    ) -> None:
        """It runs no more. status: None when that is not known."""
        told = {"command": command.number, "session": session, "status": status}
        self.record(command.agent, "ended", **told, seconds=round(seconds, 3))

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
            try:
                path = path_of(self._folder(), agent)
            except CorralError as error:
                self._failure = error.message
                return
            journal = Journal(path, limit=LIMIT, syncing=self._syncing)
            self._journals[agent] = journal
        line = {"time": round(moment, 3), "agent": agent, "kind": kind, **fields}
        journal.write(json_line(line))

    @property
    def failure(self) -> str | None:
        """What went wrong with a file, or None."""
        failures = (each.failure for each in self._journals.values())
        return next((each for each in failures if each), self._failure)

    def close(self) -> None:
        """No more comes."""
        for agent in list(self._outputs):
            self.flush(agent)
        for journal in self._journals.values():
            journal.close()
