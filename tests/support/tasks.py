"""A kept sandbox that is given tasks by the command line, as an orchestrator does."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.corral import command, environment
from tests.support.corral import kept as up_kept

PATIENCE = 60.0
Finished = subprocess.CompletedProcess[str]


def corral(*arguments: str, cwd: Path | None = None, input: str = "") -> Finished:
    """`corral ARGUMENTS`, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd or "/",
        env=environment(),
        input=input,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def done(*arguments: str, **options: Any) -> str:
    """Its output, when it must succeed."""
    finished = corral(*arguments, **options)
    assert finished.returncode == 0, (arguments, finished.stdout, finished.stderr)
    return finished.stdout


def lines(name: str, *messages: Mapping[str, Any], options: Sequence[str] = ()) -> list[Any]:
    """What comes of lines that are given to `corral task NAME -`, in its order."""
    text = "".join(json.dumps(message) + "\n" for message in messages)
    finished = corral("task", name, "-", *options, input=text)
    assert finished.stderr == "", finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def result(name: str, task: Mapping[str, Any], *options: str) -> Any:
    """The result of one task."""
    finished = corral("task", name, json.dumps(task), "--json", *options)
    assert finished.stdout, finished.stderr
    return json.loads(finished.stdout)


@contextlib.contextmanager
def kept(folder: Path, name: str, *options: str) -> Iterator[str]:
    """A sandbox on a folder, removed at the end."""
    try:
        with up_kept(name, name, "-d", *options, folder=folder):
            yield name
    finally:
        corral("discard", name)
