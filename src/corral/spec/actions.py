"""[actions.NAME]: what a project calls by a name, for tasks (docs/tasks.md).

An action runs only inside a sandbox, as any command of an agent could, so a project's own file may
have them without being accepted.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from .model import Action
from .sizes import format_duration, parse_duration
from .text import has_control, is_unicode, nearest, printable
from .values import Base, variable

ACTION_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
RESERVED = ("execute_code", "prompt", "run")  # what tasks know without a table
MAX_ACTIONS = 100
MAX_BYTES = 64 << 10  # of the words and variables of one action


def parse_action(value: object, base: Base) -> Action:
    """An action from `NAME=CMD`, split as a shell does, or from a table with its name."""
    if isinstance(value, Mapping):
        return _from_table(value, base)
    text = value if isinstance(value, str) else ""
    name, equals, command = text.partition("=")
    if not equals:
        raise ConfigError(
            f"“{printable(str(value), 80)}” is not an action.",
            hint="Write NAME=CMD: 'test=pytest -q', say.",
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the action {printable(name, 63)}: a quote is not closed.") from error
    return _checked(Action(name=name.strip(), run=tuple(words)))


def show_action(value: object) -> str:
    """As it would be written on the command line."""
    if not isinstance(value, Action):
        return printable(str(value))
    return printable(f"{value.name}={shlex.join(value.run)}", 10_000)


def unknown_action(name: str, known: Sequence[str]) -> str:
    """What to say to one who calls an action that there is not, as a hint."""
    close = nearest(name, [*known, *RESERVED])
    if close:
        return f"Did you mean {close}?"
    listed = ", ".join(known) or "none"
    return f"The project's own are: {listed}. Write [actions.NAME] run = [...] in corral.toml."


def _from_table(row: Mapping[str, object], base: Base) -> Action:
    run, env = row["run"], row.get("env", {})
    assert isinstance(run, list) and isinstance(env, Mapping)  # types were checked with the file
    cwd, timeout = row.get("cwd"), row.get("timeout")
    return _checked(
        Action(
            name=str(row["name"]),
            run=tuple(run),
            cwd=None if cwd is None else _folder(str(cwd)),
            env=tuple((variable(n, v).name, str(v)) for n, v in env.items()),
            timeout=None if timeout is None else parse_duration(timeout),
        )
    )


def _checked(action: Action) -> Action:
    name = action.name
    if not ACTION_NAME.fullmatch(name):
        raise ConfigError(
            f"“{printable(name, 63)}” is not a name for an action.",
            hint="Lower-case letters, digits, - and _ are possible, up to 63, a letter first.",
        )
    if name in RESERVED:
        raise ConfigError(
            f"an action cannot be called {name}: every task knows that one.",
            hint="Take another name.",
        )
    if not action.run or not action.run[0]:
        raise ConfigError(
            f"the action {name} has no command.", hint='Write run = ["pytest", "-q"], say.'
        )
    texts = [*action.run, *(text for pair in action.env for text in pair)]
    if any("\0" in text or not is_unicode(text) for text in texts):
        raise ConfigError(f"the action {name} has a NUL byte, or text that is not Unicode.")
    if sum(len(text.encode()) + 1 for text in texts) > MAX_BYTES:
        raise ConfigError(f"the action {name} is longer than {MAX_BYTES >> 10} KiB.")
    return action


def _folder(path: str) -> str:
    if not path or has_control(path) or not is_unicode(path):
        raise ConfigError(
            "cwd is empty, has a control character or is not Unicode.",
            hint="Name a folder of the workspace, or an absolute path in the sandbox.",
        )
    return posixpath.normpath(path)


def show_timeout(action: Action) -> str | None:
    """Its time limit as it is written."""
    return None if action.timeout is None else format_duration(action.timeout)
