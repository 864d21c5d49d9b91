"""What happened, as values: for the user's terminal, `--json` lines and, later, the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of all events; `event` in JSON is the class name in lower case."""


class Phase(Event, frozen=True, kw_only=True, tag="phase"):
    """A step of starting up has begun: shown as progress when it takes long.

    name: a short stable word (facts, packages, kernel, base-image, boot, exports, agent).
    message: what a person reads, e.g. "downloading the guest kernel".
    """

    name: str
    message: str


class Notice(Event, frozen=True, kw_only=True, tag="notice"):
    """Something the user should know that is no error, e.g. why TCG is used."""

    level: str
    message: str


class Output(Event, frozen=True, kw_only=True, tag="output"):
    """Bytes the command wrote; in JSON base64 in `data`. stream: stdout or stderr."""

    stream: str
    data: bytes


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """The command runs. seconds: from the start of corral."""

    sandbox: str
    accel: str
    carrier: str
    seconds: float


class Exited(Event, frozen=True, kw_only=True, tag="exited"):
    """The command ended. status: as a shell would report it. seconds: since Started."""

    status: int
    seconds: float


class Became(Event, frozen=True, kw_only=True, tag="state"):
    """A kept sandbox is in another state: starting, running, paused, stopping, stopped, failed."""

    sandbox: str
    state: str


class AgentBecame(Event, frozen=True, kw_only=True, tag="agent"):
    """An agent is in another state: starting, idle, working, stuck, dead. reason: why, or "".

    Between idle and working nothing is told: the events of its commands say it.
    """

    agent: int
    state: str
    reason: str = ""


class CommandStarted(Event, frozen=True, kw_only=True, tag="command-started"):
    """A command runs in a kept sandbox. command: its number there. argv: shortened, printable."""

    command: int
    argv: tuple[str, ...]


class CommandEnded(Event, frozen=True, kw_only=True, tag="command-ended"):
    """A command in a kept sandbox ended. status: as a shell would report it."""

    command: int
    status: int
    seconds: float


class TaskBegan(Event, frozen=True, kw_only=True, tag="task-began"):
    """An agent of a kept sandbox begins a task. task: its id."""

    task: str
    agent: int


class TaskEnded(Event, frozen=True, kw_only=True, tag="task-ended"):
    """A task has its result. status: done, failed, timeout, cancelled, error, lost."""

    task: str
    agent: int
    status: str
    seconds: float


class Connection(Event, frozen=True, kw_only=True, tag="connection"):
    """A connection that an agent asked for: when it is decided, and, if it was made, at its end.

    time: seconds since 1970 when it was asked for. name: as the agent named it, canonical where it
    can be, else printable. address: what was dialled, "" where nothing was. verdict: allowed,
    denied or failed; reason: why, in a few words ("not on the list", "private address"). rule: the
    text of the rule that decided, or "". sent, received: bytes, from the agent's point of view.
    seconds: how long it lasted; None while it is open.
    """

    time: float
    agent: int
    name: str
    port: int
    verdict: str
    reason: str = ""
    rule: str = ""
    address: str = ""
    sent: int = 0
    received: int = 0
    seconds: float | None = None


class Failed(Event, frozen=True, kw_only=True, tag="failed"):
    """corral itself failed; the last event."""

    message: str
    hint: str | None
    status: int


def json_line(event: Event | dict[str, Any]) -> bytes:
    """An event as a line of JSON that no terminal obeys, whoever reads it.

    JSON's own escapes leave out DEL, the control characters from U+0080 on, and directions.
    """
    line = msgspec.json.encode(event)
    if line.isascii() and b"\x7f" not in line:
        return line + b"\n"
    text = line.decode()
    return "".join(c if c.isprintable() else _escaped(c) for c in text).encode() + b"\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


Report = Callable[[Event], None]


def silent(_event: Event) -> None:
    """A Report that keeps nothing."""
