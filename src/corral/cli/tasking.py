"""What `corral task` does: from words to a task, from a result to the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from ..errors import CorralError, TaskError, UsageError
from ..keeper.client import Kept
from ..keeper.store import Record
from ..spec.sizes import parse_duration
from ..spec.text import harmless, printable
from ..tasks import parse
from ..tasks.history import LOST, OnDisk, folder_of, lost
from ..tasks.model import (
    MAX_TASK,
    CancelMessage,
    Outgoing,
    Result,
    Task,
    TaskMessage,
)
from ..tasks.summary import Summary
from . import keeping
from .inside import variables

INTERRUPTED = 130
IN_FLIGHT = 256  # tasks of one standard input; more of it is read when some have ended
_STATUS = {"timeout": 124, "cancelled": 130}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    agent: int | None
    number: str | None
    run: bool
    language: str | None
    prompt: str | None
    recipe: str | None
    workdir: str | None
    env: tuple[str, ...]
    timeout: str | None
    detach: bool
    events: bool
    as_json: bool


def task_of(asked: Asked) -> Task:
    """The task that the words mean. Raises UsageError, TaskError, ConfigError."""
    given = [each for each in (asked.run, asked.language, asked.prompt is not None) if each]
    if len(given) > 1:
        raise UsageError("--run, --code and --prompt exclude each other.")
    fields = _fields(asked)
    surroundings: dict[str, Any] = {}
    if asked.workdir is not None:
        surroundings["cwd"] = asked.workdir
    if asked.env:
        surroundings["env"] = variables(asked.env, asked.environ)
    if surroundings and not (asked.run or asked.language):
        raise UsageError("--workdir and --env belong to --run and --code.")
    if asked.recipe is not None:
        if asked.prompt is None:
            raise UsageError("--recipe belongs to --prompt.")
        fields["agent"] = asked.recipe
    if asked.timeout is not None:
        fields["timeout_ms"] = max(1, round(parse_duration(asked.timeout) * 1000))
    return parse.task({**fields, **surroundings})


def _fields(asked: Asked) -> dict[str, Any]:
    words = asked.words
    if asked.prompt is not None:
        if words:
            raise UsageError("with --prompt there are no further words.")
        return {"action": "prompt", "prompt": asked.prompt}
    if asked.run:
        return {"action": "run", "argv": list(words)}
    if asked.language is not None:
        if len(words) != 1:
            raise UsageError("--code takes one file, or - for standard input.")
        return {"action": "execute_code", "language": asked.language, "code": _content(words[0])}
    if not words:
        raise UsageError("there is no task.", hint="See: corral task --help")
    if words[0].lstrip().startswith("{"):
        if len(words) > 1:
            raise UsageError("after a task in JSON there are no further words.")
        message = parse.line(words[0])
        if not isinstance(message, TaskMessage) or message.id or message.agent:
            raise UsageError("this is a message, not a task.", hint="Give it on standard input: -")
        return message.task
    return {"action": words[0], "args": list(words[1:])}


def _content(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise TaskError(f"{printable(name)} cannot be read: {error.strerror}.") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TaskError(f"{printable(name)} is not UTF-8 (byte {error.start + 1}).") from error


# One task


def one(name: str, asked: Asked) -> int:
    """Give one, show its result; returns the exit status."""
    task = task_of(asked)
    given: list[str] = []

    async def work(kept: Kept) -> Result | None:
        number = await kept.tasks.submit(task, agent=asked.agent or 1, number=asked.number)
        given.append(number)
        if asked.detach:
            return None
        return await _followed(kept, number, events=asked.events)

    try:
        found = keeping.talk(name, work)
    except KeyboardInterrupt:
        if given:
            _goes_on(name, given)
        return INTERRUPTED
    if found is None:
        click.echo(given[0])
        return 0
    return 0 if asked.events and found.ok else show(found, as_json=asked.as_json or asked.events)


async def _followed(kept: Kept, number: str, *, events: bool) -> Result:
    if not events:
        return await kept.tasks.result(number)
    async with contextlib.aclosing(kept.tasks.follow(number)) as messages:
        async for message in messages:
            if isinstance(message, Result):
                return message
            print_line(message)
    raise AssertionError("a task's messages end with its result")


def _goes_on(name: str, numbers: list[str]) -> None:
    shown = numbers[0] if len(numbers) == 1 else f"{numbers[0]} and {len(numbers) - 1} more"
    keeping.say(
        f"task {shown} goes on: corral task result {name} {numbers[0]} | "
        f"corral task cancel {name} {numbers[0]}"
    )


def show(found: Result, *, as_json: bool) -> int:
    """A result, for a person or as JSON; returns the exit status for it."""
    if as_json:
        print_line(found)
    else:
        _write(sys.stdout, found.stdout)
        _write(sys.stderr, found.stderr)
        for line in _remarks(found):
            keeping.say(line)
    if found.status in _STATUS:
        return _STATUS[found.status]
    if found.exit_status is None:
        return 0 if found.ok else CorralError.exit_status
    return found.exit_status or int(not found.ok)  # an agent program may fail with 0


def _write(stream: Any, text: str) -> None:
    """What a task printed; at a terminal as text, as it may be looked at long after it ran."""
    if text:
        text = harmless(text.replace("\r\n", "\n")) if stream.isatty() else text
        stream.write(text if text.endswith("\n") else f"{text}\n")
        stream.flush()


def _remarks(found: Result) -> list[str]:
    said = [f"task {found.id}: {found.status}"]
    if found.exit_status:
        said[0] += f", status {found.exit_status}"
    if found.usage is not None:
        said[0] += f", {found.usage.seconds:.1f} s"
        if found.usage.requests:
            said[0] += f", {found.usage.requests} requests to models"
            if found.usage.usd:
                said[0] += f", {found.usage.usd:.4f} USD"
    if found.changes is not None:
        counts = {
            "new": len(found.changes.added),
            "changed": len(found.changes.modified),
            "removed": len(found.changes.deleted),
        }
        parts = [f"{count} {word}" for word, count in counts.items() if count]
        if parts:
            more = " or more" if found.changes.truncated else ""
            said[0] += f", files: {', '.join(parts)}{more}"
    for name in ("stdout", "stderr"):
        if getattr(found, f"{name}_truncated"):
            said.append(f"{name} had {getattr(found, f'{name}_bytes')} bytes, not all are shown")
    if found.error:
        said.append(found.error)
    if found.hint:
        said.append(found.hint)
    return said


def print_line(message: Outgoing) -> None:
    """A message as a line of JSON, in ASCII: a terminal may be reading."""
    click.echo(json.dumps(msgspec.to_builtins(message)))


# Lines


def lines(name: str, asked: Asked) -> int:
    """Tasks from standard input, results to standard output; returns the exit status."""
    if asked.run or asked.prompt is not None or asked.recipe or asked.number or asked.detach:
        raise UsageError("with - the lines say it: --run, --prompt, --recipe, --id and -d do not.")
    if asked.timeout or asked.workdir or asked.env:
        raise UsageError("with - each task says it: --timeout, --workdir and --env do not.")
    flow = _Flow(asked.agent or 1, events=asked.events)
    try:
        keeping.talk(name, flow.run)
    except KeyboardInterrupt:
        if flow.under_way:
            _goes_on(name, sorted(flow.under_way))
        return INTERRUPTED
    return 1 if flow.missed else 0


class _Flow:
    """The tasks of one standard input. missed: how many are not done."""

    def __init__(self, agent: int, *, events: bool) -> None:
        self._agent = agent
        self._events = events
        self.missed = 0
        self.under_way: set[str] = set()
        self._room = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, kept: Kept) -> None:
        """Until standard input has ended, and every task."""
        incoming = _Input()
        try:
            async with asyncio.TaskGroup() as group:
                while (line := await incoming.get()) is not None:
                    number = await self._take(kept, line) if line.strip() else None
                    if number is not None:
                        self.under_way.add(number)
                        group.create_task(self._follow(kept, number))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _take(self, kept: Kept, line: bytes) -> str | None:
        """Do what a line says; the id of the task that was given, if it was one."""
        try:
            message = parse.line(line)
            if isinstance(message, CancelMessage):
                await kept.tasks.cancel(message.id)
                return None
            task = parse.task(message.task)
            await self._room.acquire()
            try:
                return await kept.tasks.submit(
                    task, agent=message.agent or self._agent, number=message.id
                )
            except TaskError:
                self._room.release()
                raise
        except TaskError as error:
            self._refused(error, _id_in(line))
            return None

    async def _follow(self, kept: Kept, number: str) -> None:
        try:
            self._show(await _followed(kept, number, events=self._events))
        finally:
            self.under_way.discard(number)
            self._room.release()

    def _refused(self, error: TaskError, number: str | None) -> None:
        self._show(
            Result(
                id=number,
                agent=0,
                action="",
                status="refused",
                error=error.message,
                hint=error.hint,
            )
        )

    def _show(self, found: Result) -> None:
        print_line(found)
        self.missed += not found.ok


def _id_in(line: bytes) -> str | None:
    """The id of a line that is wrong otherwise, so that its sender knows which."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict) and isinstance(number := found.get("id"), str):
            return printable(number, 64)
    return None


class _Input:
    """Standard input by lines, read by a thread that nobody waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(IN_FLIGHT)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def get(self) -> bytes | None:
        """The next line; None at the end. A line that is too long comes as its beginning."""
        line = await self._queue.get()
        self._room.release()
        return line

    def _read(self) -> None:
        # By the descriptor: a thread that waits in a file object would keep Python from ending.
        rest, skipping = b"", False
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            while data := os.read(0, 1 << 16):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    if not skipping:
                        self._put(line)
                    skipping = False
                if len(rest) > MAX_TASK:
                    if not skipping:
                        self._put(rest)
                    rest, skipping = b"", True
            if rest and not skipping:
                self._put(rest)
            self._put(None)

    def _put(self, line: bytes | None) -> None:
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, line)


# What is known


def result(name: str, number: str, *, as_json: bool) -> int:
    """Show how a task ended; returns the exit status for it."""
    record = Record.find(name)
    if record.is_kept():
        found = keeping.talk(name, lambda kept: kept.tasks.result(number))
    else:
        entry = OnDisk(folder_of(name)).get(number)
        if entry is None:
            raise TaskError(
                f"the sandbox {name} has no task {printable(number, 64)}.",
                hint=f"Those that are known: corral task list {name}",
            )
        found = (entry if entry.result else lost(entry.summary, LOST)).known()
    return show(found, as_json=as_json)


def listed(name: str, *, as_json: bool) -> None:
    """List a sandbox's tasks, whether it runs or not."""
    record = Record.find(name)
    if record.is_kept():
        found = keeping.talk(name, lambda kept: kept.tasks.listed())
    else:
        found = [_settled(each) for each in OnDisk(folder_of(name)).summaries()]
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    rows = [("ID", "AGENT", "STATE", "SECONDS", "TASK")]
    for each in found:
        took = "" if each.ended is None else f"{each.ended - (each.began or each.ended):.1f}"
        rows.append((each.id, str(each.agent), each.status or each.state, took, each.what))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo(harmless("  ".join([*cells, row[4]]).rstrip()))


def _settled(summary: Summary) -> Summary:
    """One that had not ended when its keeper did is lost."""
    return summary if summary.state == "ended" else lost(summary, "").summary
