"""From JSON, or values of a program, to tasks. Pure; whatever is wrong is a TaskError in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..errors import ConfigError, TaskError
from ..spec.actions import ACTION_NAME
from ..spec.text import has_control, is_unicode, nearest, printable
from ..spec.values import variable
from .model import (
    BUILT_IN,
    ID_PATTERN,
    MAX_AGENT,
    MAX_TASK,
    MAX_TEXT,
    CancelMessage,
    ExecuteCode,
    Incoming,
    Named,
    Prompt,
    Run,
    Task,
    TaskMessage,
)

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_EXAMPLE = 'Write {"action": "run", "argv": ["make", "test"]}, say; docs/tasks.md has all of it.'


def task(value: object) -> Task:
    """A task out of a JSON object, or a mapping. Raises TaskError."""
    fields = _object(value)
    name = fields.get("action")
    if not isinstance(name, str):
        raise TaskError("the task has no “action”.", hint=_EXAMPLE)
    try:
        if name in BUILT_IN:
            found: Task = msgspec.convert(fields, ExecuteCode | Run | Prompt)
        elif ACTION_NAME.fullmatch(name):
            found = msgspec.convert(fields, Named)
        else:
            close = nearest(name, BUILT_IN)
            raise TaskError(
                f"“{printable(name, 63)}” is not a name for an action.",
                hint=f"Did you mean {close}?" if close else _EXAMPLE,
            )
    except msgspec.ValidationError as error:
        raise TaskError(
            f"the task {printable(name, 63)}: {worded(error)}.", hint=_EXAMPLE
        ) from error
    _check(found)
    return found


def line(text: bytes | str) -> Incoming:
    """A line of JSON: a message, or a task without one around it. Raises TaskError."""
    fields = _decoded(text)
    if "type" not in fields and "action" in fields:
        return TaskMessage(task=fields)
    try:
        message = msgspec.convert(fields, TaskMessage | CancelMessage)
    except msgspec.ValidationError as error:
        raise TaskError(f"the message: {worded(error)}.", hint=_EXAMPLE) from error
    checked_id(message.id)
    if isinstance(message, TaskMessage):
        checked_agent(message.agent)
    return message


def checked_id(number: str | None) -> None:
    """Raises TaskError for what cannot be a task's id."""
    if number is not None and not ID_PATTERN.fullmatch(number):
        raise TaskError(
            f"“{printable(number, 64)}” cannot be a task's id.",
            hint="Letters, digits, ., _ and - are possible, up to 64, a letter or digit first.",
        )


def checked_agent(number: int | None) -> None:
    """Raises TaskError for what cannot be an agent's number."""
    if number is not None and not 1 <= number <= MAX_AGENT:
        raise TaskError(f"there is no agent {number}.", hint="Agents are counted from 1.")


def what(task: Task) -> str:
    """A task in short, on one line, printable."""
    if isinstance(task, ExecuteCode):
        return printable(f"{task.language}: {task.code}", 100)
    if isinstance(task, Run):
        return printable(" ".join(task.argv), 100)
    if isinstance(task, Prompt):
        return printable(f"{task.agent or 'prompt'}: {task.prompt}", 100)
    return printable(" ".join((task.action, *task.args)), 100)


def action_of(task: Task) -> str:
    """The name of its action."""
    return task.action if isinstance(task, Named) else str(task.__struct_config__.tag)


def worded(error: msgspec.ValidationError) -> str:
    """What msgspec found wrong, in plain words."""
    reason, _, path = str(error).partition(" - at ")
    where = path.strip("`").removeprefix("$").lstrip(".")
    if match := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", reason):
        kinds = [_WORDS.get(kind, kind) for kind in match[1].split(" | ") if kind != "null"]
        said = f"expected {' or '.join(kinds)}, not {_WORDS.get(match[2], match[2])}"
    elif match := re.fullmatch(r"Object missing required field `([^`]+)`", reason):
        said = f"“{match[1]}” is missing"
    elif match := re.fullmatch(r"Object contains unknown field `([^`]+)`", reason):
        said = f"“{match[1]}” is not known"
    elif reason.startswith("Invalid value"):
        said = "not one of those that are known"
    else:
        said = reason[:1].lower() + reason[1:]
    return printable(f"{where}: {said}" if where else said, 300)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list | tuple) else "no object"
        raise TaskError(f"a task is an object; this is {kind}.", hint=_EXAMPLE)
    return dict(value)


def _decoded(text: bytes | str) -> dict[str, Any]:
    if len(text) > MAX_TASK:
        raise TaskError(
            f"the task is longer than {MAX_TASK >> 10} KiB.",
            hint="Put what is large into a file: corral cp, or box.files.write.",
        )
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TaskError(f"this is not JSON: {printable(said, 200)}.", hint=_EXAMPLE) from error
    return _object(value)


def _check(task: Task) -> None:
    """What types do not say: no NUL, Unicode, lengths in bytes."""
    texts = list(_texts(task))
    _unicode(texts)
    for text in texts:
        if "\0" in text:
            raise TaskError("the task has a NUL character, which no argument can have.")
        if len(text.encode()) > MAX_TEXT:
            raise TaskError(
                f"a text of the task is longer than {MAX_TEXT >> 10} KiB.",
                hint="Put what is large into a file, or into stdin.",
            )
    size = len(msgspec.json.encode(task))
    if size > MAX_TASK:
        raise TaskError(
            f"the task has {size >> 10} KiB; at most {MAX_TASK >> 10} are possible.",
            hint="Put what is large into a file: corral cp, or box.files.write.",
        )


def _texts(task: Task) -> Iterator[str]:
    """What becomes an argument, a variable or a folder."""
    if isinstance(task, ExecuteCode | Run):
        yield from task.env.values()
        _check_surroundings(task)
        yield task.cwd or ""
    if isinstance(task, ExecuteCode):
        yield task.code
    elif isinstance(task, Run):
        if not task.argv[0]:
            raise TaskError("argv: the first word, the program, is empty.")
        yield from task.argv
    elif isinstance(task, Prompt):
        yield task.prompt
    else:
        yield from task.args


def _check_surroundings(task: ExecuteCode | Run) -> None:
    for name, content in task.env.items():
        try:
            variable(name, content)
        except ConfigError as error:
            raise TaskError(f"env: {error.message}", hint=error.hint) from error
    if task.cwd is not None and has_control(task.cwd):
        raise TaskError("cwd has a control character.")
    _unicode((task.stdin,))


def _unicode(texts: tuple[str, ...] | list[str]) -> None:
    if not all(is_unicode(text) for text in texts):
        raise TaskError("the task has text that is not Unicode (a lone surrogate).")
