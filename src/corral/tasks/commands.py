"""From a task to the command that does it. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import assert_never

from msgspec import Struct

from ..agents.model import OutputFormat
from ..errors import TaskError
from ..policy import Gateway
from ..spec import Action
from ..spec.actions import unknown_action
from ..spec.text import nearest, printable
from .model import ExecuteCode, Named, Run

# language: its program as it is called everywhere, and what takes code as an argument. Code that
# begins with - is no option: of -c in shells and node's --eval it would be without -- and =.
LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "python": ("python3", "-c", "{code}"),
    "bash": ("bash", "-c", "--", "{code}"),
    "sh": ("sh", "-c", "--", "{code}"),
    "node": ("node", "--eval={code}"),
    "perl": ("perl", "-e", "{code}"),
    "ruby": ("ruby", "-e", "{code}"),
    "php": ("php", "-r", "{code}"),
    "lua": ("lua", "-e", "{code}"),
    "r": ("Rscript", "-e", "{code}"),
    "julia": ("julia", "-e", "{code}"),
}


class Place(Struct, frozen=True, kw_only=True):
    """An agent, as far as tasks need to know it.

    workdir: where its commands start. folder: its workspace on the host, None where nothing there
    can change. lane: agents of the same one work in turn. recipe: of its program, or None. home:
    in the sandbox. variables: names of those that its commands have. gateways: that it may use.
    """

    agent: int
    workdir: str
    folder: str | None
    lane: str
    recipe: str | None = None
    home: str = "/"
    variables: frozenset[str] = frozenset()
    gateways: tuple[Gateway, ...] = ()


class Command(Struct, frozen=True, kw_only=True):
    """What is run for a task. timeout: seconds. workdir: absolute, None for the agent's own.

    output: how what it writes reads, of a recipe's.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    workdir: str | None = None
    stdin: bytes = b""
    timeout: float | None = None
    output: OutputFormat = "text"


def command(
    task: ExecuteCode | Run | Named, place: Place, actions: Mapping[str, Action]
) -> Command:
    """The command for a task of an agent, but a prompt. Raises TaskError."""
    if isinstance(task, Named):
        return _action(task, place, actions)
    if isinstance(task, ExecuteCode):
        argv = _code(task)
    elif isinstance(task, Run):
        argv = task.argv
    else:
        assert_never(task)
    return Command(
        argv=argv,
        environment=task.env,
        workdir=_folder(task.cwd, place),
        stdin=task.stdin.encode(),
        timeout=_seconds(task.timeout_ms),
    )


def _code(task: ExecuteCode) -> tuple[str, ...]:
    words = LANGUAGES.get(task.language.lower())
    if words is None:
        close = nearest(task.language, LANGUAGES)
        raise TaskError(
            f"code in “{printable(task.language, 40)}” cannot be run.",
            hint=f"Did you mean {close}?" if close else f"These can: {', '.join(LANGUAGES)}.",
        )
    return tuple(word.replace("{code}", task.code) for word in words)


def _action(task: Named, place: Place, actions: Mapping[str, Action]) -> Command:
    action = actions.get(task.action)
    if action is None:
        raise TaskError(
            f"there is no action “{task.action}”.", hint=unknown_action(task.action, list(actions))
        )
    timeout = action.timeout if task.timeout_ms is None else _seconds(task.timeout_ms)
    return Command(
        argv=(*action.run, *task.args),
        environment=dict(action.env),
        workdir=_folder(action.cwd, place),
        timeout=timeout,
    )


def _folder(cwd: str | None, place: Place) -> str | None:
    return None if cwd is None else posixpath.normpath(posixpath.join(place.workdir, cwd))


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
