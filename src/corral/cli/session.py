"""One `corral run`, from the settings to the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..agents import is_known
from ..errors import CommandNotFoundError, CorralError
from ..events import AgentBecame, Event, Failed, Notice, Phase, Report, Started
from ..host.limits import capacity
from ..plan import Plan
from ..sandbox import Parts, Sandbox, host_facts, make_plan, prepare, start, sweep
from ..sandbox.appearances import Watch, told
from ..spec import Extra, Spec, load_spec, missing_program_hint
from ..spec.text import printable
from . import terminal
from .asked import Asked, prepared
from .attach import Attachment, Command, as_json
from .options import Wanted
from .progress import Progress
from .refusals import Refusals

if TYPE_CHECKING:
    from .record import Record

_RECORD = "corral.cli.record"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What the command line says. began: time.monotonic(). agent: the one to run, if it is one."""

    argv: tuple[str, ...]
    wanted: Wanted
    terminal: bool | None
    stdin: bool
    began: float
    agent: Asked | None = None


def run(request: Request, folder: Path, environ: Mapping[str, str]) -> int:
    """Do it; returns the exit status. Raises CorralError unless events are wanted as JSON."""
    wanted = request.wanted
    progress = Progress()
    report: Report = as_json if wanted.as_json else progress
    try:
        extra = None
        if request.agent is not None:
            extra, argv = prepared(request.agent, wanted, folder, environ, report)
            request = dataclasses.replace(request, argv=argv)
        spec = wanted_spec(wanted, folder, environ, report, alone=True, extra=extra)
        facts = host_facts(report, assume_yes=wanted.assume_yes)
        with reviewed(spec, report) as spec:
            plan = make_plan(spec, facts, environ)
            sweep()
            parts = prepare(plan, facts, report)
            refusals = Refusals(report, plan.network)
            session = _Session(request, spec, plan, parts, refusals, progress, environ)
            try:
                return asyncio.run(session.run())
            finally:
                refusals.tell()
    except CorralError as error:
        progress.stop()
        if not wanted.as_json:
            raise
        as_json(Failed(message=error.message, hint=error.hint, status=error.exit_status))
        return error.exit_status
    finally:
        progress.stop()


def wanted_spec(
    wanted: Wanted,
    folder: Path,
    environ: Mapping[str, str],
    report: Report,
    *,
    alone: bool = False,
    extra: Extra | None = None,
    share_auth: bool = False,
    import_settings: bool = False,
) -> Spec:
    """The Spec of a new sandbox on `folder`; its warnings are reported. Raises ConfigError.

    alone: it has one agent, whatever files say of several. extra: what a recipe adds. share_auth,
    import_settings: see load_with_recipes; not for one that is alone.
    """
    named, force, most = wanted.config_file, wanted.force, capacity()
    if alone:
        spec = load_spec(
            folder,
            wanted.overrides,
            environ,
            config_file=named,
            force=force,
            capacity=most,
            extra=extra,
            alone=True,
        )
    else:
        from ..agents.herd import load_with_recipes

        spec = load_with_recipes(
            *(folder, wanted.overrides, environ, report),
            config_file=named,
            force=force,
            capacity=most,
            share_auth=share_auth,
            import_settings=import_settings,
        )
    for warning in spec.warnings:
        report(Notice(level="warning", message=warning))
    return spec


@contextlib.contextmanager
def reviewed(spec: Spec, report: Report) -> Iterator[Spec]:
    """The Spec with a snapshot in place of the workspace, if its changes are to be held back."""
    if not spec.reviewed:
        yield spec
        return
    from ..review.working import working_copy

    report(Phase(name="snapshot", message="copying the workspace"))
    with working_copy(spec) as (spec, notices):
        for message in notices:
            report(Notice(level="info", message=message))
        yield spec


class _Session:
    """The sandbox of one command."""

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
        self._attachment = Attachment(report)
        self._record: Record | None = None

    async def run(self) -> int:
        """Start the sandbox, run the command, end the sandbox."""
        return await self._attachment.during(self._in_sandbox)

    async def _in_sandbox(self) -> int:
        wanted = self._request.wanted
        echo = terminal.STDERR if wanted.console else None
        watch = Watch(self._spec, self._plan)
        # In a thread, while the guest boots, so it costs no time.
        asyncio.get_running_loop().run_in_executor(None, importlib.import_module, _RECORD)
        try:
            async with start(
                self._plan, self._parts, self._happened, console_echo=echo, keep=wanted.debug
            ) as sandbox:
                await watch.ready()
                for shell in sandbox.debug_shells:
                    said = f"debug shell of agent {shell.agent}: {shell.command}"
                    self._report(Notice(level="info", message=said))
                return await self._command(sandbox)
        finally:
            changed: list[str] = []
            if self._attachment.execution is not None:
                changed = watch.changed()
                for message in told(changed):
                    self._report(Notice(level="warning", message=message))
                self._tell_changes()
            await self._end_record(changed)

    def _happened(self, event: Event) -> None:
        if isinstance(event, AgentBecame):
            self._written().became(event)
        self._report(event)

    def _written(self) -> Record:
        """What is written down, begun when the machine is up."""
        if self._record is None:
            from .record import Record

            self._record = Record(self._plan.name)
        return self._record

    async def _end_record(self, changed: list[str]) -> None:
        failure = await self._record.close(changed) if self._record is not None else None
        if failure is not None:
            said = f"not all of what the command did is written down: {printable(failure)}"
            self._report(Notice(level="warning", message=said))

    def _tell_changes(self) -> None:
        if self._spec.reviewed:
            from ..review.working import summary

            for level, message in summary(self._spec):
                self._report(Notice(level=level, message=message))

    async def _command(self, sandbox: Sandbox) -> int:
        self._progress.stop()
        request = self._request
        given = any(name == "TERM" for name, _value in self._spec.run.env)
        command = Command(
            argv=request.argv,
            terminal=request.terminal,
            stdin=request.stdin,
            as_json=request.wanted.as_json,
            term=None if given else self._environ.get("TERM", "xterm"),
            timeout=self._spec.run.timeout,
            kill=sandbox.kill,
        )
        try:
            with self._written().of(sandbox) as recorded:
                return await self._attachment.run(recorded, command, self._started)
        except CommandNotFoundError as error:
            raise self._with_tool_hint(error) from error

    def _started(self) -> Started:
        machine = self._plan.machine
        return Started(
            sandbox=self._plan.name,
            accel=machine.accel,
            carrier=machine.carrier,
            seconds=round(time.monotonic() - self._request.began, 3),
        )

    def _with_tool_hint(self, error: CommandNotFoundError) -> CommandNotFoundError:
        command = self._request.argv[0]
        hint = missing_program_hint(
            command, self._environ.get("PATH", ""), self._parts.facts.user.home
        )
        if self._request.agent is None and is_known(command):
            hint = f"To run the agent, installed where it is missing: corral run {command}"
        return CommandNotFoundError(error.message, hint=hint or error.hint)
