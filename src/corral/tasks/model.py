"""Tasks and what comes of them, as values; the schema in docs/tasks.md is made from these.

A task says what to do, in a tagged union on `action`. A message is a line of JSON, tagged by
`type`: `task` and `cancel` go in; `result`, `heartbeat`, `transcript` and `llm` come out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ..agents.output import Called, Returned, Said, Used
from .summary import State, Status

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_AGENT = 4096
MAX_TIMEOUT = 7 * 24 * 3600 * 1000  # milliseconds
MAX_TASK = 512 << 10  # bytes of a task as JSON
MAX_TEXT = 96 << 10  # bytes of code or of a prompt: Linux takes 128 KiB in one argument
MAX_OUTPUT = 64 << 10  # bytes kept of each of stdout and stderr: the first half and the last
MAX_EVENTS = 200  # of an agent program's output
MAX_SAID = 2000  # characters of each of their texts
MAX_ANSWER = 16 << 10  # characters
MAX_CHANGED = 500  # paths of each kind in a result

BUILT_IN = ("execute_code", "run", "prompt")

TimeoutMs = Annotated[
    int,
    Meta(ge=1, le=MAX_TIMEOUT, description="End it after so many milliseconds; default: never."),
]
Folder = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        description="Where it starts: absolute in the sandbox, or relative to the workspace.",
    ),
]
Environment = Annotated[dict[str, str], Meta(description="Further environment variables.")]
Input = Annotated[str, Meta(description="Its standard input; default: empty.")]


class _Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action"):
    timeout_ms: TimeoutMs | None = None


class ExecuteCode(_Asked, frozen=True, kw_only=True, tag="execute_code"):
    """Run code: the language's own program, as the sandbox has it, with the code as an argument."""

    language: Annotated[str, Meta(description="python, bash, node or another; see docs/tasks.md.")]
    code: Annotated[str, Meta(max_length=MAX_TEXT)]
    cwd: Folder | None = None
    env: Environment = {}
    stdin: Input = ""


class Run(_Asked, frozen=True, kw_only=True, tag="run"):
    """Run a command; there is no shell."""

    argv: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4096)]
    cwd: Folder | None = None
    env: Environment = {}
    stdin: Input = ""


class Prompt(_Asked, frozen=True, kw_only=True, tag="prompt"):
    """Have an agent program work on a prompt, without a terminal."""

    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    agent: Annotated[
        str | None, Meta(description="A recipe: claude, say; default: the agent's own.")
    ] = None


class Named(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run one of the project's actions. action: its name. args: added to its command."""

    action: Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,62}$")]
    args: Annotated[tuple[str, ...], Meta(max_length=4096)] = ()
    timeout_ms: TimeoutMs | None = None


Task = ExecuteCode | Run | Prompt | Named


# What comes of it

AgentEvent = Said | Called | Returned | Used


class Usage(Struct, frozen=True, kw_only=True):
    """What a task used.

    seconds: while it ran. cpu_seconds: of all the agent's processes meanwhile, None where the guest
    does not tell. requests: to models, by the agent, meanwhile; with their tokens and US dollars,
    which are None where a price is not known.
    """

    seconds: float
    cpu_seconds: float | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0


class Changes(Struct, frozen=True, kw_only=True):
    """Paths of the agent's workspace that are new, changed or gone, relative, printable.

    repository: how many files of git's own changed, which are not listed. truncated: there are
    more than are listed.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    repository: int = 0
    truncated: bool = False


class Result(Struct, frozen=True, kw_only=True, tag_field="type", tag="result"):
    """How a task ended.

    status: done (its command ended with 0), failed (with another status), timeout, cancelled,
    error (it could not be started), lost (the sandbox ended), refused (it was no task).
    exit_status: of its command, 128+n when signal n ended it; None without one. error, hint: what
    went wrong, in words. stdout, stderr: text, what cannot be printed in escapes; of more than
    MAX_OUTPUT bytes the first and last half, with `truncated` set. stdout_bytes, stderr_bytes: how
    much it wrote. answer: what an agent program came to, and events: what it said and called; of
    more than MAX_EVENTS the first and last half, with `events_truncated` set. changes: None where
    it is not known. queued, began, ended: seconds since 1970.
    """

    id: str | None
    agent: int
    action: str
    status: Status
    exit_status: int | None = None
    error: str | None = None
    hint: str | None = None
    stdout: str = ""
    stdout_bytes: int = 0
    stdout_truncated: bool = False
    stderr: str = ""
    stderr_bytes: int = 0
    stderr_truncated: bool = False
    answer: str | None = None
    events: tuple[AgentEvent, ...] = ()
    events_truncated: bool = False
    usage: Usage | None = None
    changes: Changes | None = None
    queued: float = 0.0
    began: float | None = None
    ended: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.status == "done"


# Messages


class TaskMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="task"
):
    """A task for an agent. id: yours, else one is given; no two tasks of a sandbox share one."""

    task: dict[str, Any]
    id: str | None = None
    agent: int | None = None


class CancelMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="cancel"
):
    """End a task; its result says `cancelled`."""

    id: str


class Heartbeat(Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    """A task is there: now and then, and when it begins. seconds: since it began, or was queued.

    ahead: how many are before it in its queue. output: bytes it has written so far.
    """

    id: str
    agent: int
    state: State
    seconds: float
    ahead: int = 0
    output: int = 0


class Transcript(Struct, frozen=True, kw_only=True, tag_field="type", tag="transcript"):
    """What a task writes, as it comes; as much of it as a result holds at most."""

    id: str
    agent: int
    stream: Literal["stdout", "stderr"]
    text: str


class Llm(Struct, frozen=True, kw_only=True, tag_field="type", tag="llm"):
    """A request of the agent's to a model, answered while the task ran."""

    id: str
    agent: int
    gateway: str
    model: str
    status: int | None
    seconds: float
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None


Incoming = TaskMessage | CancelMessage
Outgoing = Result | Heartbeat | Transcript | Llm
