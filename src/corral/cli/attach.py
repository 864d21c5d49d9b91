"""A command in a sandbox, joined to the user's streams, terminal and signals."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Protocol

from ..errors import CorralError, ExecTimeoutError
from ..events import Event, Exited, Output, Report, Started, json_line
from ..proc import crash_point
from . import terminal

FORWARDED = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# What a terminal sends to a whole process group, so the command's group gets it, too.
_GROUP = (signal.SIGINT, signal.SIGQUIT)
TIMEOUT_GRACE = 2.0  # seconds between TERM and the end of everything
ANSWER_GRACE = 5.0  # seconds for a guest's answers meanwhile
# So many interrupts within so many seconds end it, whatever the command does with them.
IMPATIENCE, IMPATIENCE_SECONDS = 3, 3.0


class Running(Protocol):
    """A command: its streams, its status."""

    @property
    def stdin(self) -> terminal.Target:
        """What it reads."""

    @property
    def stdout(self) -> terminal.Source:
        """What it writes."""

    @property
    def stderr(self) -> terminal.Source | None:
        """The same; None with a terminal."""

    async def wait(self) -> int:
        """Its exit status, as a shell gives it."""

    async def signal(self, number: int, *, group: bool = False) -> None:
        """Send it, or its group, a signal."""

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""


class Executor(Protocol):
    """Where commands run: a Sandbox, one that is kept, or a jail on this host."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Running:
        """Start a command."""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """What is to run.

    terminal: None for what fits. term: the kind of terminal, TERM, where it gets one. timeout:
    seconds, with `kill` at their end.
    """

    argv: tuple[str, ...]
    terminal: bool | None
    stdin: bool
    as_json: bool
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workdir: str | None = None
    term: str | None = None
    timeout: float | None = None
    kill: Callable[[], Awaitable[None]] | None = None


def as_json(event: Event) -> None:
    """A Report that prints JSON lines."""
    terminal.out(_line(event))


def _line(event: Event) -> bytes:
    return json_line(event)


class Attachment:
    """The user's streams and signals. execution: the command, once it runs."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._interrupts: collections.deque[float] = collections.deque(maxlen=IMPATIENCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.execution: Running | None = None

    async def during(self, work: Callable[[], Awaitable[int]]) -> int:
        """The result of `work`, with signals passed on to its command once there is one."""
        main = asyncio.current_task()
        assert main is not None
        stopped: list[int] = []

        def stop(number: int) -> None:
            if not stopped:  # once: what then ends everything must not be interrupted
                main.cancel()
            stopped.append(number)

        with self._signals(stop):
            try:
                return await work()
            except (asyncio.CancelledError, CorralError):
                if not stopped:
                    raise
                return 128 + stopped[0]
            finally:
                for task in self._tasks:
                    task.cancel()

    async def run(self, sandbox: Executor, command: Command, started: Callable[[], Started]) -> int:
        """Run it to its end; returns the status. started: the event to report when it runs."""
        crash_point("command-starting")
        wanted = command.terminal
        if wanted is None:
            wanted = terminal.is_interactive() and not command.as_json
        size = terminal.size() if wanted else None
        variables = dict(command.environment)
        if size is not None and command.term is not None:
            variables.setdefault("TERM", command.term)
        self.execution = execution = await sandbox.exec(
            command.argv, environment=variables, workdir=command.workdir, terminal=size
        )
        crash_point("command-running")
        began = time.monotonic()
        self._report(started())
        with contextlib.ExitStack() as stack:
            if size is not None:
                stack.enter_context(terminal.on_resize(size, execution.resize))
                if command.stdin and os.isatty(terminal.STDIN):
                    stack.enter_context(terminal.raw_mode())
            status = await self._attend(command, execution, has_terminal=size is not None)
        crash_point("command-ended")
        self._report(Exited(status=status, seconds=round(time.monotonic() - began, 3)))
        return status

    async def _attend(self, command: Command, execution: Running, *, has_terminal: bool) -> int:
        """Move bytes until the command has ended and its output is out."""
        if command.stdin:
            self._spawn(terminal.feed(execution.stdin), "stdin")
        elif not has_terminal:  # a terminal has no end: nobody types at this one
            await execution.stdin.end()
        limit = command.timeout
        work = asyncio.ensure_future(self._finished(execution, as_json=command.as_json))
        try:
            await asyncio.wait((work,), timeout=limit)
            if work.done():
                return work.result()
            await self._overtime(command, execution, work)
        finally:
            work.cancel()
        raise ExecTimeoutError(f"the command ran longer than {limit:g} seconds and was ended.")

    async def _finished(self, execution: Running, *, as_json: bool) -> int:
        """The command's status, once all its output is written."""
        sink = terminal.Sink(terminal.STDOUT)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_output(execution.stdout, "stdout", sink, as_json=as_json))
                if execution.stderr is not None:
                    other = sink if as_json else terminal.Sink(terminal.STDERR)
                    group.create_task(_output(execution.stderr, "stderr", other, as_json=as_json))
                return await execution.wait()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    @staticmethod
    async def _overtime(command: Command, execution: Running, work: asyncio.Future[int]) -> None:
        """TERM, a moment to say goodbye, then the end of everything.

        A guest that does not answer any more has no say in when: the machine's end is near.
        """
        with contextlib.suppress(CorralError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_GRACE + ANSWER_GRACE):
                await execution.signal(signal.SIGTERM, group=True)
                await asyncio.wait((work,), timeout=TIMEOUT_GRACE)
                if command.kill is not None:
                    await command.kill()

    @contextlib.contextmanager
    def _signals(self, stop: Callable[[int], None]) -> Iterator[None]:
        """Pass signals on to the command; before there is one, they end the start."""
        loop = asyncio.get_running_loop()

        def caught(number: int) -> None:
            if number in _GROUP:
                self._interrupts.append(loop.time())
            if self.execution is None or self._is_impatient():
                stop(number)
            else:
                group = number in _GROUP
                self._spawn(self._forward(number, group), f"signal-{number}")

        for number in FORWARDED:
            loop.add_signal_handler(number, caught, number)
        try:
            yield
        finally:
            for number in FORWARDED:
                loop.remove_signal_handler(number)

    def _is_impatient(self) -> bool:
        times = self._interrupts
        return len(times) == IMPATIENCE and times[-1] - times[0] < IMPATIENCE_SECONDS

    async def _forward(self, number: int, group: bool) -> None:
        assert self.execution is not None
        with contextlib.suppress(CorralError):
            await self.execution.signal(number, group=group)

    def _spawn(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _output(
    stream: terminal.Source, name: str, sink: terminal.Sink, *, as_json: bool
) -> None:
    if not as_json:
        await terminal.drain(stream, sink)
        return
    while data := await stream.read():
        await sink.write(_line(Output(stream=name, data=data)))
