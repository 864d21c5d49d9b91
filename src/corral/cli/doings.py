"""Lines of an agent's transcript for a person: commands, what their terminals showed, tasks."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from typing import Any

import click

from ..spec.text import printable

_LINES, _CHARACTERS = 40, 400  # of one output that are shown
_INDENT = "  "
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?> ]*[@-~]|\(.|.)")
_PATHS = 20


def lines(record: dict[str, Any]) -> Iterator[str]:
    """What is shown of a record; nothing of one that is of no known kind."""
    match record.get("kind"):
        case "started":
            argv = record.get("argv")
            words = [str(word) for word in argv] if isinstance(argv, list) else []
            where = _session(record)
            yield _head(record, f"command {record.get('command')}{where}: {shlex.join(words)}")
        case "ended":
            status = record.get("status")
            how = "ended" if status is None else f"ended with status {status}"
            yield _head(
                record, f"command {record.get('command')}{_session(record)} {how}{_after(record)}"
            )
        case "output":
            yield from _output(record)
        case "agent":
            because = f": {record['reason']}" if record.get("reason") else ""
            yield _head(record, f"is {record.get('state')}{because}")
        case "task":
            how = str(record.get("status") or record.get("state"))
            yield _head(record, f"task {record.get('task')} {how}{_after(record)}")
        case "files":
            yield from _files(record)


def _head(record: dict[str, Any], text: str) -> str:
    moment = record.get("time")
    clock = ""
    if isinstance(moment, int | float) and 0 <= moment < 1 << 40:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return click.style(printable(f"{clock}  agent {record.get('agent')}  {text}", 600), bold=True)


def _session(record: dict[str, Any]) -> str:
    return f" (session {record['session']})" if record.get("session") else ""


def _after(record: dict[str, Any]) -> str:
    seconds = record.get("seconds")
    return f" after {seconds:.1f} s" if isinstance(seconds, int | float) else ""


def _output(record: dict[str, Any]) -> Iterator[str]:
    """What a terminal was given, as text: what moved the cursor in between is left out."""
    text = record.get("text")
    if not isinstance(text, str):
        return
    said = [line.strip() for line in re.split(r"[\r\n]+", _SEQUENCE.sub("", text))]
    said = [line for line in said if line]
    for line in said[:_LINES]:
        yield f"{_INDENT}{printable(line, _CHARACTERS)}"
    if len(said) > _LINES:
        yield f"{_INDENT}... {len(said) - _LINES} more lines"


def _files(record: dict[str, Any]) -> Iterator[str]:
    shown = 0
    for what in ("added", "modified", "deleted", "obeyed by git"):
        paths = record.get(what.split()[0])
        for path in paths if isinstance(paths, list) else ():
            shown += 1
            if shown <= _PATHS:
                yield f"{_INDENT}{what}: {printable(str(path), _CHARACTERS)}"
    if shown > _PATHS:
        yield f"{_INDENT}... {shown - _PATHS} more files"
