"""What the keeper's socket carries, beside the frames and streams of `corral_guest.wire`.

A client asks, the keeper answers; both are of one version of corral, which `hello` makes sure of.

    hello   {version}                              -> Hello
    exec    ExecCall                               -> {}, later the notification `exited`
    signal  {exec, signal, group}                  -> {}
    end     {exec}                                 -> {}, once nothing that it started is left
    resize  {exec, rows, columns}                  -> {}
    kill    {agent}, sync {}, pause {}, resume {}  -> {}
    checkpoint  {tag, replace}                     -> {}
    fork    {names}                                -> Forked
    stop    {timeout}                              -> {}, later the notification `gone`
    inspect {}, stats {}                           -> an object
    agents  {}                                     -> Agents
    publish {publish}, unpublish {port, address}   -> Port
    published {}                                   -> Published
    follow  {what, stream}                         -> {}, then the stream carries a log
    sessions {}                                    -> Sessions
    session-open    OpenCall                       -> {opened}: false when it was there already
    session-attach  AttachCall                     -> {}, then the stream carries a terminal
    session-resize  {attachment, rows, columns}    -> {}
    session-type    {agent, session, data}         -> {}
    session-capture {agent, session, history}      -> {text}
    session-end     {agent, session}               -> {}
    task    TaskCall                               -> {id}, once it is taken
    task-follow {id, stream}                       -> {}, then the stream carries its messages, a
                                                      line of JSON each; the result is the last
    task-cancel {id}                               -> {}
    task-list {}                                   -> {tasks}

    session-over {attachment, status}   its program ended; status: null when that is not known
    exited  {exec, status}       a command of this client's ended, all its output is under way
    gone    {problem}            the sandbox ends; the last message

An error's data is a Problem. Text that may hold stray bytes travels as `packed`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from ..errors import ChannelError
from ..gateway.account import Spent
from ..policy import Publish
from ..sandbox import AgentStatus
from ..sandbox.ports import Port
from ..tasks.summary import Summary
from .model import Info, State

FAILED = -32000  # JSON-RPC 2.0: implementation-defined server errors
UNKNOWN_METHOD = -32601
INVALID = -32602
MAX_SIGNAL = 64  # signal(7)
MAX_STOP = 24 * 3600.0  # seconds

T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Hello(_Message, frozen=True, kw_only=True):
    """Who answers. user: who commands run as. workdir: where they start. agents: their numbers."""

    version: int
    name: str
    state: State
    accel: str
    carrier: str
    user: str
    workdir: str
    agents: tuple[int, ...] = (1,)


class ExecCall(_Message, frozen=True, kw_only=True):
    """The arguments of `Sandbox.exec`. exec: the client's number for it. streams: by name."""

    exec: int
    argv: list[str]
    streams: dict[str, int]
    environment: dict[str, str]
    workdir: str | None = None
    terminal: tuple[int, int] | None = None
    agent: int = 1
    builtin: bool = False


class SignalCall(_Message, frozen=True, kw_only=True):
    """A signal for a command, or for its process group."""

    exec: int
    signal: int
    group: bool = False


class EndCall(_Message, frozen=True, kw_only=True):
    """End a command of this client's with all that it has started; it may have ended itself."""

    exec: int


class ResizeCall(_Message, frozen=True, kw_only=True):
    """The new size of a command's terminal."""

    exec: int
    rows: int
    columns: int


class HelloCall(_Message, frozen=True, kw_only=True):
    """The first request. version: of the client."""

    version: int


class KillCall(_Message, frozen=True, kw_only=True):
    """End every process of an agent."""

    agent: int = 1


class StopCall(_Message, frozen=True, kw_only=True):
    """End the sandbox; timeout: seconds that its commands get after TERM."""

    timeout: float


class CheckpointCall(_Message, frozen=True, kw_only=True):
    """Keep the sandbox as it is now. replace: also when there is one of that tag."""

    tag: str
    replace: bool = False


class ForkCall(_Message, frozen=True, kw_only=True):
    """Save the sandbox for copies with these names, and copy the workspace for each."""

    names: list[str]


class Forked(_Message, frozen=True, kw_only=True):
    """Where the copies go on from, and what the user should know of them."""

    folder: str
    notice: str | None = None


class PublishCall(_Message, frozen=True, kw_only=True):
    """A port of the host is to lead into the sandbox."""

    publish: Publish


class UnpublishCall(_Message, frozen=True, kw_only=True):
    """It is to lead there no more. address: None where only one has that port."""

    port: int
    address: str | None = None


class Published(_Message, frozen=True, kw_only=True):
    """The ports of the host that lead into the sandbox."""

    ports: tuple[Port, ...]


class OpenCall(_Message, frozen=True, kw_only=True):
    """Start a program in a session of its own, unless there is one of that name.

    argv: empty for the session's own program; see `Sessions.open`.
    """

    agent: int
    session: str
    argv: list[str]
    environment: dict[str, str]
    terminal: tuple[int, int]
    workdir: str | None = None


class AttachCall(_Message, frozen=True, kw_only=True):
    """Show a session on a stream, and type what comes there. attachment: the client's number.

    watch: what comes does not count.
    """

    attachment: int
    agent: int
    session: str
    stream: int
    rows: int
    columns: int
    watch: bool = False


class ResizeSessionCall(_Message, frozen=True, kw_only=True):
    """An attached window has another size."""

    attachment: int
    rows: int
    columns: int


class SessionCall(_Message, frozen=True, kw_only=True):
    """Something with a session. history: lines that have left the screen. data: packed bytes."""

    agent: int
    session: str
    history: int = 0
    data: str = ""


class Sessions(_Message, frozen=True, kw_only=True):
    """Those that there are."""

    sessions: tuple[Info, ...]


class AgentRow(_Message, frozen=True, kw_only=True):
    """How one agent is, what it does and what it spent at gateways.

    task: in a few printable words; None: none.
    """

    status: AgentStatus
    task: str | None = None
    spent: Spent = msgspec.field(default_factory=Spent)


class Agents(_Message, frozen=True, kw_only=True):
    """All agents, by number."""

    agents: tuple[AgentRow, ...]


class FollowCall(_Message, frozen=True, kw_only=True):
    """A log, from its beginning and on, on a stream."""

    what: Literal["events", "console"]
    stream: int


class TaskCall(_Message, frozen=True, kw_only=True):
    """A task for an agent, as JSON has it. id: wanted, or None."""

    task: dict[str, Any]
    agent: int = 1
    id: str | None = None


class TaskFollowCall(_Message, frozen=True, kw_only=True):
    """What a task has said and says, on a stream."""

    id: str
    stream: int


class TaskCancelCall(_Message, frozen=True, kw_only=True):
    """End a task."""

    id: str


class TaskTaken(_Message, frozen=True, kw_only=True):
    """A task's id."""

    id: str


class TaskList(_Message, frozen=True, kw_only=True):
    """The tasks that are known."""

    tasks: list[Summary]


def read(params: Mapping[str, object], kind: type[T]) -> T:
    """The params of a message. Raises ChannelError."""
    try:
        return msgspec.convert(dict(params), kind)
    except msgspec.ValidationError as error:
        raise ChannelError(f"the keeper's socket carried something else: {error}.") from error


def write(message: msgspec.Struct) -> dict[str, Any]:
    """A message as params."""
    found: dict[str, Any] = msgspec.to_builtins(message)
    return found


def packed(text: str) -> str:
    """Text as its bytes, one character a byte: JSON carries Unicode only."""
    return os.fsencode(text).decode("latin-1")


def unpacked(text: str) -> str:
    """What was packed. Raises ChannelError for what was not."""
    try:
        return os.fsdecode(text.encode("latin-1"))
    except UnicodeEncodeError as error:
        raise ChannelError("the keeper's socket carried text that is not packed.") from error
