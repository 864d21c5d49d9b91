"""One `corral run`, from the settings to the exit status."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path

import msgspec

from ..channel import Stream
from ..errors import CommandNotFoundError, CorralError, ExecTimeoutError
from ..events import Event, Exited, Failed, Notice, Output, Report, Started
from ..host import Facts, layout, measure
from ..host.limits import capacity
from ..paths import program_files
from ..plan import Plan, build
from ..proc import crash_point
from ..sandbox import Execution, Parts, Sandbox, prepare, start, sweep
from ..spec import PROTECTED, Spec, load_spec, mask_matcher, missing_program_hint
from . import terminal
from .appearances import Watch
from .progress import Progress

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
# So many interrupts within so many seconds end the sandbox, whatever the command does with them.
IMPATIENCE, IMPATIENCE_SECONDS = 3, 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What the command line says. overrides: settings by key. began: time.monotonic()."""

    argv: tuple[str, ...]
    overrides: Mapping[str, object]
    config_file: Path | None
    force: bool
    assume_yes: bool
    terminal: bool | None
    stdin: bool
    console: bool
    debug: bool
    as_json: bool
    began: float


def run(request: Request, folder: Path, environ: Mapping[str, str]) -> int:
    """Do it; returns the exit status. Raises CorralError unless events are wanted as JSON."""
    progress = Progress()
    report: Report = _as_json if request.as_json else progress
    try:
        spec = load_spec(
            folder,
            request.overrides,
            environ,
            config_file=request.config_file,
            force=request.force,
            capacity=capacity(),
        )
        for warning in spec.warnings:
            report(Notice(level="warning", message=warning))
        facts = _facts(request, report)
        plan = make_plan(spec, facts, environ)
        sweep()
        parts = prepare(plan, facts, report)
        session = _Session(request, spec, plan, parts, report, progress, environ)
        return asyncio.run(session.run())
    except CorralError as error:
        progress.stop()
        if not request.as_json:
            raise
        _as_json(Failed(message=error.message, hint=error.hint, status=error.exit_status))
        return error.exit_status
    finally:
        progress.stop()


def _facts(request: Request, report: Report) -> Facts:
    facts = measure()
    if facts.qemu is None or facts.bwrap is None:
        from ..host.provision import ensure_programs

        facts = ensure_programs(
            facts, ("qemu", "bwrap"), assume_yes=request.assume_yes, report=report
        )
    return facts


def make_plan(spec: Spec, facts: Facts, environ: Mapping[str, str]) -> Plan:
    """Survey the workspace and plan."""
    found = layout.survey(
        spec.workspace.path,
        unprotect=spec.workspace.unprotect,
        protected=PROTECTED,
        is_masked=mask_matcher(spec.workspace.mask) if spec.workspace.mask else None,
        program=program_files(),
    )
    return build(spec, facts, found, environ)


def _as_json(event: Event) -> None:
    terminal.write_all(terminal.STDOUT, _line(event))


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


class _Session:
    """The command, its streams, its signals and its time limit."""

    def __init__(
        self,
        request: Request,
        spec: Spec,
        plan: Plan,
        parts: Parts,
        report: Report,
        progress: Progress,
        environ: Mapping[str, str],
    ) -> None:
        self._request = request
        self._spec = spec
        self._plan = plan
        self._parts = parts
        self._report = report
        self._progress = progress
        self._environ = environ
        default = terminal.is_interactive() and not request.as_json
        self._terminal = default if request.terminal is None else request.terminal
        self._interrupts: collections.deque[float] = collections.deque(maxlen=IMPATIENCE)
        self._execution: Execution | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Start the sandbox, run the command, end the sandbox."""
        main = asyncio.current_task()
        assert main is not None
        stopped: list[int] = []

        def stop(number: int) -> None:
            if not stopped:  # once: what then ends everything must not be interrupted
                main.cancel()
            stopped.append(number)

        with self._signals(stop):
            try:
                return await self._in_sandbox()
            except (asyncio.CancelledError, CorralError):
                if not stopped:
                    raise
                return 128 + stopped[0]
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _in_sandbox(self) -> int:
        request = self._request
        echo = terminal.STDERR if request.console else None
        watch = Watch(self._spec, self._plan)
        try:
            async with start(
                self._plan, self._parts, self._report, console_echo=echo, keep=request.debug
            ) as sandbox:
                await watch.ready()
                return await self._command(sandbox)
        finally:
            if self._execution is not None:
                for message in watch.notices():
                    self._report(Notice(level="warning", message=message))

    async def _command(self, sandbox: Sandbox) -> int:
        self._progress.stop()
        crash_point("command-starting")
        size = terminal.size() if self._terminal else None
        extra: dict[str, str] = {}
        if self._terminal and not any(name == "TERM" for name, _value in self._spec.run.env):
            extra["TERM"] = self._environ.get("TERM", "xterm")
        try:
            execution = await sandbox.exec(self._request.argv, environment=extra, terminal=size)
        except CommandNotFoundError as error:
            raise self._with_tool_hint(error) from error
        self._execution = execution
        crash_point("command-running")
        machine = self._plan.machine
        began = time.monotonic()
        self._report(
            Started(
                sandbox=self._plan.name,
                accel=machine.accel,
                carrier=machine.carrier,
                seconds=round(began - self._request.began, 3),
            )
        )
        with contextlib.ExitStack() as stack:
            if size is not None:
                stack.enter_context(terminal.on_resize(size, execution.resize))
                if self._request.stdin and os.isatty(terminal.STDIN):
                    stack.enter_context(terminal.raw_mode())
            status = await self._attend(sandbox, execution)
        crash_point("command-ended")
        self._report(Exited(status=status, seconds=round(time.monotonic() - began, 3)))
        return status

    async def _attend(self, sandbox: Sandbox, execution: Execution) -> int:
        """Move bytes until the command has ended and its output is out."""
        if self._request.stdin:
            self._spawn(terminal.feed(execution.stdin), "stdin")
        elif not self._terminal:  # a terminal has no end: nobody types at this one
            await execution.stdin.end()
        limit = self._spec.run.timeout
        work = asyncio.ensure_future(self._finished(execution))
        try:
            await asyncio.wait((work,), timeout=limit)
            if work.done():
                return work.result()
            await self._overtime(sandbox, execution, work)
        finally:
            work.cancel()
        raise ExecTimeoutError(f"the command ran longer than {limit:g} seconds and was ended.")

    async def _finished(self, execution: Execution) -> int:
        """The command's status, once all its output is written."""
        sink = terminal.Sink(terminal.STDOUT)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._output(execution.stdout, "stdout", sink))
                if execution.stderr is not None:
                    other = sink if self._request.as_json else terminal.Sink(terminal.STDERR)
                    group.create_task(self._output(execution.stderr, "stderr", other))
                return await execution.wait()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _output(self, stream: Stream, name: str, sink: terminal.Sink) -> None:
        if not self._request.as_json:
            await terminal.drain(stream, sink)
            return
        while data := await stream.read():
            await sink.write(_line(Output(stream=name, data=data)))

    @staticmethod
    async def _overtime(sandbox: Sandbox, execution: Execution, work: asyncio.Future[int]) -> None:
        """TERM, a moment to say goodbye, then the end of everything.

        A guest that does not answer any more has no say in when: the machine's end is near.
        """
        with contextlib.suppress(CorralError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_GRACE + ANSWER_GRACE):
                await execution.signal(signal.SIGTERM, group=True)
                await asyncio.wait((work,), timeout=TIMEOUT_GRACE)
                await sandbox.kill()

    @contextlib.contextmanager
    def _signals(self, stop: Callable[[int], None]) -> Iterator[None]:
        """Pass signals on to the command; before there is one, they end the start."""
        loop = asyncio.get_running_loop()

        def caught(number: int) -> None:
            if number in _GROUP:
                self._interrupts.append(loop.time())
            if self._execution is None or self._is_impatient():
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
        assert self._execution is not None
        with contextlib.suppress(CorralError):
            await self._execution.signal(number, group=group)

    def _spawn(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _with_tool_hint(self, error: CommandNotFoundError) -> CommandNotFoundError:
        hint = missing_program_hint(
            self._request.argv[0], self._environ.get("PATH", ""), self._parts.facts.user.home
        )
        return CommandNotFoundError(error.message, hint=hint or error.hint)
