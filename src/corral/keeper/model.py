"""What is kept of a sandbox, as values: what was asked for, what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from .. import errors
from ..errors import CorralError, GuestError, SandboxError
from ..spec import Spec

VERSION = 1  # of everything here, and of the protocol on the keeper's socket

State = Literal["starting", "running", "paused", "stopping", "stopped", "failed"]
ALIVE = frozenset(("starting", "running", "paused", "stopping"))  # states with a keeper

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `corral up` was asked for: enough to start again, from any folder.

    environ: what planning takes from the user's environment. created: seconds since 1970.
    debug: keep the run folder's logs.
    """

    spec: Spec
    environ: dict[str, str]
    created: float
    debug: bool = False
    version: int = VERSION


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as a value. kind: its class. code, data: of a GuestError."""

    kind: str
    message: str
    hint: str | None = None
    detail: str | None = None
    code: int = 0
    data: dict[str, object] = {}

    @classmethod
    def of(cls, error: CorralError) -> Problem:
        """The value of an error."""
        more: tuple[int, dict[str, object]] = (0, {})
        if isinstance(error, GuestError):
            more = error.code, error.data
        return cls(
            kind=type(error).__name__,
            message=error.message,
            hint=error.hint,
            detail=error.detail,
            code=more[0],
            data=more[1],
        )

    def error(self) -> CorralError:
        """The error again; of a class that is not known here, a SandboxError."""
        kind = getattr(errors, self.kind, None)
        if kind is GuestError:
            return GuestError(self.message, code=self.code, data=self.data)
        if not (isinstance(kind, type) and issubclass(kind, CorralError)):
            kind = SandboxError
        found: CorralError = kind(self.message, hint=self.hint, detail=self.detail)
        return found


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a sandbox.

    since: when the state began; started: when its machine was up last; seconds since 1970. keeper:
    the process id of its keeper. boot: the host's boot_id at that time. run_folder: of this run,
    with the socket. problem: why it failed. notices: what the user should know of its end.
    """

    state: State
    since: float
    started: float = 0.0
    keeper: int = 0
    boot: str = ""
    run_folder: str = ""
    accel: str = ""
    carrier: str = ""
    problem: Problem | None = None
    notices: tuple[str, ...] = ()
    version: int = VERSION


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A session, for who lists them. since, output: seconds since 1970. title: as it calls itself.

    dropped: commands to the terminal that were not given on.
    """

    agent: int
    session: str
    command: int
    argv: tuple[str, ...]
    since: float
    output: float
    size: tuple[int, int]
    clients: int
    title: str
    dropped: int
    recording: str | None


def planning_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What `corral.plan` looks at of the user's environment; nothing else is kept."""
    return {
        name: value
        for name, value in environ.items()
        if name in ("LANG", "PATH") or name.startswith("LC_")
    }


def encode(value: msgspec.Struct) -> bytes:
    """As JSON. In ASCII: bytes that are no text travel in escapes, as Python names them."""
    return json.dumps(msgspec.to_builtins(value), indent=1).encode() + b"\n"


def decode(content: bytes, kind: type[T]) -> T:
    """A value from its JSON. Raises ValueError for anything else."""
    return msgspec.convert(json.loads(content), kind)
