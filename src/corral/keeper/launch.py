"""Start a keeper as a process of its own, and hear from it until the sandbox is up."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..errors import SandboxGoneError
from ..events import Event, Notice, Phase, Report
from ..proc.detached import start_detached
from .model import Problem
from .store import SHOWN_LINES, Record

MODULE = "corral.keeper"
LOG = "keeper.log"
_LINE = 1 << 16


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="event"):
    """The sandbox is up."""


class NotReady(msgspec.Struct, frozen=True, tag="not-ready", tag_field="event"):
    """It will not be."""

    problem: Problem


Said = Phase | Notice | Ready | NotReady


def launch(
    record: Record, environ: Mapping[str, str], report: Report, checkpoint: Path | None = None
) -> None:
    """Start the record's sandbox, kept by a process of its own; returns when it is up.

    To be called under `record.changing()`. checkpoint: the folder of one to go on from. Raises what
    the start fails with. A caller that is
    interrupted ends the start: the keeper notices that nobody waits.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            start_detached(
                MODULE,
                [record.name, *([str(checkpoint)] if checkpoint is not None else [])],
                environ,
                log=record.folder / LOG,
                control=theirs.fileno(),
            )
        with ours.makefile("rb") as lines:
            for line in lines:
                said = msgspec.json.decode(line, type=Said)
                match said:
                    case Ready():
                        return
                    case NotReady():
                        raise said.problem.error()
                    case Phase() | Notice():
                        report(said)
    raise SandboxGoneError(
        f"the keeper of {record.name} ended while it started the sandbox.",
        hint=f"Its log: {record.folder / LOG}",
        detail=_tail(record),
    )


def _tail(record: Record) -> str | None:
    try:
        text = (record.folder / LOG).read_text(errors="replace")
    except OSError:
        return None
    return "\n".join(text.splitlines()[-SHOWN_LINES:]) or None


class Starter:
    """The keeper's end: whoever started it and waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.told = False

    def report(self, event: Event) -> None:
        """What is happening, as long as somebody waits."""
        if not self.told and isinstance(event, Phase | Notice):
            self._say(event)

    def ready(self) -> None:
        """It is up."""
        self._say(Ready())
        self._close()

    def failed(self, problem: Problem) -> None:
        """It will not be up."""
        if not self.told:
            self._say(NotReady(problem))
            self._close()

    def _say(self, said: msgspec.Struct) -> None:
        data = msgspec.json.encode(said) + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # nobody waits any more, which `abandoned` tells
            self.told = True

    def _close(self) -> None:
        self.told = True
        os.close(self._fd)
