"""One `corral run`, from the settings to the exit status."""

from __future__ import annotations

import asyncio
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
from ..plan import Plan, build
from ..sandbox import Execution, Parts, Sandbox, prepare, start, sweep
from ..spec import PROTECTED, Spec, load_spec, mask_matcher, missing_program_hint
from . import terminal
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
IMPATIENCE = 3  # so many interrupts end the sandbox, whatever the command does with them


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
    )
    return build(spec, facts, found, environ)


def _as_json(event: Event) -> None:
    os.write(terminal.STDOUT, msgspec.json.encode(event) + b"\n")


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
        wanted = request.terminal
        self._terminal = terminal.is_interactive() if wanted is None else wanted
        if request.as_json or not terminal.is_interactive():
            self._terminal = self._terminal and wanted is True
        self._interrupts = 0
        self._execution: Execution | None = None
        self._sandbox: Sandbox | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Start the sandbox, run the command, end the sandbox."""
        main = asyncio.current_task()
        assert main is not None
        stopped: list[int] = []

        def stop(number: int) -> None:
            stopped.append(number)
            main.cancel()

        with self._signals(stop):
            try:
                return await self._in_sandbox()
            except asyncio.CancelledError:
                if not stopped:
                    raise
                return 128 + stopped[0]
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _in_sandbox(self) -> int:
        request = self._request
        echo = terminal.STDERR if request.console else None
        async with start(
            self._plan, self._parts, self._report, console_echo=echo, keep=request.debug
        ) as sandbox:
            self._sandbox = sandbox
            if request.debug:
                message = f"logs are kept in {sandbox.folder}"
                self._report(Notice(level="info", message=message))
            status = await self._command(sandbox)
        self._tell_of_appearances()
        return status

    async def _command(self, sandbox: Sandbox) -> int:
        self._progress.stop()
        extra = {"TERM": self._environ.get("TERM", "xterm")} if self._terminal else {}
        try:
            execution = await sandbox.exec(
                self._request.argv,
                environment=extra,
                terminal=terminal.size() if self._terminal else None,
            )
        except CommandNotFoundError as error:
            raise self._with_tool_hint(error) from error
        self._execution = execution
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
            if self._terminal and terminal.is_interactive():
                stack.enter_context(terminal.raw_mode())
                stack.enter_context(terminal.on_resize(execution.resize))
            status = await self._attend(sandbox, execution)
        self._report(Exited(status=status, seconds=round(time.monotonic() - began, 3)))
        return status

    async def _attend(self, sandbox: Sandbox, execution: Execution) -> int:
        """Move bytes until the command has ended and its output is out."""
        if self._request.stdin:
            self._spawn(terminal.feed(execution.stdin), "stdin")
        else:
            await execution.stdin.end()
        outputs = [self._output(execution.stdout, "stdout", terminal.STDOUT)]
        if execution.stderr is not None:
            outputs.append(self._output(execution.stderr, "stderr", terminal.STDERR))
        limit = self._spec.run.timeout
        try:
            async with asyncio.timeout(limit):
                status, *_ = await asyncio.gather(execution.wait(), *outputs)
                return int(status or 0)
        except TimeoutError:
            await self._overtime(sandbox, execution)
            raise ExecTimeoutError(
                f"the command ran longer than {limit:g} seconds and was ended."
            ) from None

    async def _overtime(self, sandbox: Sandbox, execution: Execution) -> None:
        with contextlib.suppress(CorralError, TimeoutError):
            await execution.signal(signal.SIGTERM, group=True)
            await asyncio.wait_for(execution.wait(), TIMEOUT_GRACE)
        with contextlib.suppress(CorralError):
            await sandbox.kill()

    async def _output(self, stream: Stream, name: str, fd: int) -> None:
        if not self._request.as_json:
            await terminal.drain(stream, fd)
            return
        while data := await stream.read():
            self._report(Output(stream=name, data=data))

    @contextlib.contextmanager
    def _signals(self, stop: Callable[[int], None]) -> Iterator[None]:
        """Pass signals on to the command; before there is one, they end the start."""
        loop = asyncio.get_running_loop()

        def caught(number: int) -> None:
            if number in _GROUP:
                self._interrupts += 1
            if self._execution is None or self._interrupts >= IMPATIENCE:
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

    def _tell_of_appearances(self) -> None:
        """Protected paths that did not exist at the start and do now."""
        for agent in self._plan.agents:
            for path in agent.watched:
                if os.path.lexists(path):
                    message = (
                        f"{path} appeared: your own tools may run what it says. "
                        "Read it before you use them here."
                    )
                    self._report(Notice(level="warning", message=message))
