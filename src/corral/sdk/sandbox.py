"""A sandbox for programs that use asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, Unpack

from ..agents.herd import load_with_recipes
from ..errors import ChannelError, CheckpointError, ProcessError, SandboxError, SandboxGoneError
from ..events import Event, Notice, Report
from ..host.limits import capacity
from ..plan import Plan
from ..review.working import working_copy
from ..sandbox import AgentStatus, Parts, host_facts, make_plan, prepare, start, sweep
from ..sandbox import Sandbox as Machine
from ..sandbox.appearances import Watch
from ..sandbox.files import Executor, Files
from ..sandbox.ports import Publishing
from ..spec import Spec as Settings
from ..tasks.model import Result as TaskResult
from . import process as processes
from .forks import Origin
from .options import Options, Spec
from .ports import Ports
from .process import OUTPUT_LIMIT, AsyncLines, AsyncProcess, Result
from .review import Review
from .tasks import Takes, perform, tasks_of

_LOG = logging.getLogger("corral")
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR}
_SIZE = (24, 80)  # rows and columns of a terminal, unless told otherwise


class Box(Executor, Publishing, Protocol):
    """What is behind a sandbox: a machine of ours, or one that a keeper has."""

    async def agents(self) -> tuple[AgentStatus, ...]:
        """How its agents are."""


class AsyncSandbox:
    """A virtual machine on a folder, for as long as the `async with` block lasts.

        async with AsyncSandbox(workspace=".") as box:
            result = await box.exec(["make", "test"], timeout=600)

    spec: options that hold where none of the same name is given. report: called with everything
    that happens (corral.events); by default warnings go to the logger "corral". Options: see
    `Options`. Starting raises ConfigError, PlanError or HostError when the host cannot do this,
    BootError when the machine does not come up. After the block nothing of it is left, whatever
    ended the block. Not for use from several event loops at once.
    """

    def __init__(
        self, spec: Spec | None = None, /, *, report: Report | None = None,
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self._spec = Spec(spec, **options)
        self._kept = ""
        self._origin: Origin | None = None
        self._made: tuple[Settings, Parts] | None = None
        self._forks = 0
        self._adopted = False
        self._report = report or _to_log
        self._name = ""
        self._accel = ""
        self._agents: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._leave: asyncio.Future[None] | None = None
        self._executor: Box | None = None
        self._takes: Takes | None = None
        self._closed = False

    @classmethod
    def connect(cls, name: str) -> Self:
        """One that is kept (`corral up`), to use as any other; it outlives the block.

        Entering the block raises UnknownSandboxError, SandboxStateError.
        """
        made = cls()
        made._kept = name
        return made

    async def __aenter__(self) -> Self:
        if self._adopted:  # a fork, which runs already
            self._adopted = False
            return self
        return await self.start()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close(value)

    async def start(self) -> Self:
        """Start it, where an `async with` block does not fit; `close` must follow."""
        if self._task is not None or self._closed:
            raise SandboxError("a sandbox starts once.", hint="Make another one.")
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Box] = loop.create_future()
        self._leave = loop.create_future()
        # A task of its own: what is entered must be left by the same one, whoever calls `close`.
        self._task = loop.create_task(self._live(ready, self._leave), name="sandbox")
        try:
            await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._end()
            raise
        if not ready.done():
            self._closed = True
            await self._task  # raises why
        self._executor = ready.result()
        return self

    async def close(self, error: BaseException | None = None) -> None:
        """End it; everything is written back to the workspace. Again: nothing happens.

        error: what ends the block. An interrupt ends the machine at once; an error that comes of
        the machine's end is replaced by the reason for that (SandboxGoneError).
        """
        self._closed, self._executor, self._takes = True, None, None
        if self._task is None or self._leave is None:
            return
        if error is not None and not isinstance(error, Exception):
            self._task.cancel()
        elif not self._leave.done():
            if isinstance(error, ChannelError | ProcessError | SandboxError):
                self._leave.set_exception(error)
            else:
                self._leave.set_result(None)
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            await self._end()
            raise
        if not self._task.cancelled():
            found = self._task.exception()
            if found is not None and found is not error:
                raise found

    async def _end(self) -> None:
        """At once, whatever else happens."""
        self._closed = True
        assert self._task is not None
        self._task.cancel()
        while not self._task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((self._task,))

    async def _live(self, ready: asyncio.Future[Box], leave: asyncio.Future[None]) -> None:
        async with self._opened() as executor:
            ready.set_result(executor)
            await leave

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Box]:
        if self._kept:
            from ..keeper.client import connect

            async with connect(self._kept) as kept:
                self._name, self._accel = kept.name, kept.hello.accel
                self._agents = kept.hello.agents
                self._takes = kept.tasks
                yield kept
            return
        with contextlib.ExitStack() as holding:
            async with self._begun(holding) as sandbox:
                yield sandbox

    @contextlib.asynccontextmanager
    async def _begun(self, holding: contextlib.ExitStack) -> AsyncIterator[Box]:
        """A machine of ours. holding: what is held until it has ended."""
        if self._origin is not None:
            assert self._made is not None
            (spec, parts), origin = self._made, self._origin
            plan = await asyncio.to_thread(origin.plan)
            begun = origin.going_on(plan, self._report)
        else:
            spec, plan, parts = await asyncio.to_thread(
                _prepared, self._spec, self._report, holding
            )
            self._made = spec, parts
            begun = start(plan, parts, self._report)
        self._name, self._accel = plan.name, plan.machine.accel
        self._agents = tuple(agent.number for agent in plan.agents)
        watch = Watch(spec, plan)
        try:
            async with begun as sandbox:
                await watch.ready()
                async with tasks_of(sandbox, spec) as self._takes:
                    yield sandbox
        finally:
            for message in watch.notices():
                self._report(Notice(level="warning", message=message))

    # What it does

    @property
    def name(self) -> str:
        """The sandbox's name."""
        return self._name

    @property
    def agents(self) -> tuple[int, ...]:
        """The numbers of its agents, from 1."""
        return self._agents

    @property
    def accel(self) -> str:
        """What runs the machine: "kvm", or "tcg" (emulated, some ten times slower)."""
        return self._accel

    @property
    def files(self) -> Files:
        """Its files, as the first agent sees them."""
        return self.files_of(1)

    def files_of(self, agent: int) -> Files:
        """Its files, as one of several agents sees them."""
        return Files(self.alive(), agent=agent)

    @property
    def ports(self) -> Ports:
        """The ports of this machine that lead into it."""
        return Ports(self.alive())

    @property
    def review(self) -> Review:
        """What it has changed in its workspace, where that is held back."""
        return self.review_of(1)

    def review_of(self, agent: int) -> Review:
        """The same of one of several agents."""
        self.alive()
        return Review(self._name, agent=agent)

    async def agent_states(self) -> tuple[AgentStatus, ...]:
        """How its agents are, by number: state, processes, memory, processor time and more.

        Raises SandboxGoneError.
        """
        return await self.alive().agents()

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the command, not only the waiting
        check: bool = False,
        input: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        agent: int = 1,
        output_limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a command to its end.

        argv: program and arguments; there is no shell. timeout: seconds; then its process group
        gets TERM and, two seconds later, KILL. check: raise CommandFailedError for a status that is
        not 0. input: its standard input. env: variables, in addition to the sandbox's. cwd: an
        absolute folder, default the workspace. agent: which one of several. output_limit: bytes
        of each stream.

        Raises CommandNotFoundError, NotExecutableError, ExecError when it does not start,
        ExecTimeoutError (with what it wrote), SandboxGoneError.
        """
        process = await self.spawn(argv, env=env, cwd=cwd, agent=agent)
        data = input.encode() if isinstance(input, str) else input
        return await processes.run(
            process, argv, input=data, timeout=timeout, check=check, limit=output_limit
        )

    async def task(self, task: Mapping[str, object], *, agent: int = 1) -> TaskResult:
        """Have an agent do a task, and wait for its result.

            result = await box.task({"action": "run", "argv": ["pytest", "-q"]}, agent=2)

        task: {"action": ..., ...}, see docs/tasks.md. An agent does one at a time, so it may have
        to wait for others. Who stops waiting cancels it. That it failed, ran too long or could not
        be started is in the result's `status`. Raises
        TaskError for what is no task, SandboxGoneError.
        """
        return await perform(self._takes_tasks(), task, agent)

    async def tasks(
        self, tasks: Sequence[Mapping[str, object]], *, agents: Sequence[int] = (1,)
    ) -> list[TaskResult]:
        """Have agents do tasks, and wait for all results, which are in the order of the tasks.

        agents: who does them, in turn: the first task the first of them, and so on. See `task`.
        """
        takes = self._takes_tasks()
        if not agents:
            raise ValueError("tasks need an agent")
        try:
            async with asyncio.TaskGroup() as group:
                given = [
                    group.create_task(perform(takes, each, agents[index % len(agents)]))
                    for index, each in enumerate(tasks)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [each.result() for each in given]

    def _takes_tasks(self) -> Takes:
        self.alive()
        assert self._takes is not None
        return self._takes

    def stream(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        agent: int = 1,
    ) -> AsyncLines:
        """Run a command and iterate over its lines, of standard output and error as they come.

        It starts with the first line that is asked for. See `exec` for the arguments and errors;
        with check, CommandFailedError comes after the last line.
        """

        async def begin() -> AsyncProcess:
            return await self.spawn(argv, env=env, cwd=cwd, agent=agent)

        return AsyncLines(begin, argv, timeout=timeout, check=check)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        tty: bool | tuple[int, int] = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        agent: int = 1,
    ) -> AsyncProcess:
        """Start a command and talk to it.

        tty: give it a terminal, of 24 rows and 80 columns or of the (rows, columns) given. Raises
        CommandNotFoundError, NotExecutableError, ExecError, SandboxGoneError.
        """
        if isinstance(argv, str | bytes) or not argv:
            raise TypeError('argv must be a list such as ["ls", "-l"]; there is no shell')
        if cwd is not None and not cwd.startswith("/"):
            raise ValueError("cwd must be an absolute path in the sandbox")
        environment = dict(env or {})
        size = _SIZE if tty is True else (tty or None)
        if size is not None:
            environment.setdefault("TERM", os.environ.get("TERM", "xterm"))
        execution = await self.alive().exec(
            tuple(argv), environment=environment, workdir=cwd, terminal=size, agent=agent
        )
        return AsyncProcess(execution)

    async def fork(self, *, workspace: str | os.PathLike[str] | None = None) -> Self:
        """A copy that goes on from here, programs and all, as this one does; it runs already.

            async with await box.fork() as clone: ...

        It needs the setting machine.checkpoints (`settings={"machine.checkpoints": True}`). It has
        its own names, clock, kernel randomness, and a copy of the workspace: in the new folder
        `workspace`, or in one that is removed with it (see `workspace`). Commands that run go on in
        the copy, where nobody is connected to them (docs/checkpoints.md). Of a kept sandbox the
        copy is kept, too. Raises CheckpointError; then this one runs on.
        """
        made = await self.unstarted_fork(workspace)
        made._adopted = True
        return await made.start()

    async def unstarted_fork(self, workspace: str | os.PathLike[str] | None) -> Self:
        """`fork`, to be started by the caller, on whichever event loop."""
        executor = self.alive()
        self._forks += 1
        made = type(self)(self._spec, report=self._report)
        if self._kept:
            from ..keeper.forking import fork

            if workspace is not None:
                raise CheckpointError(
                    "the copy of a kept sandbox keeps its own workspace.", hint="Leave it out."
                )
            (made._kept,) = await asyncio.to_thread(fork, self._kept, 1, self._report)
            return made
        assert isinstance(executor, Machine) and self._made is not None
        spec, parts = self._made
        name = f"{self._name[:58]}-{self._forks}"
        folder = Path(workspace) if workspace is not None else None
        made._origin = await Origin.of(executor, spec, parts, name, folder)
        made._made = made._origin.spec, parts
        return made

    @property
    def workspace(self) -> Path | None:
        """Where its workspace is on the host; None before it starts."""
        return Path(self._made[0].workspace.on_host) if self._made is not None else None

    def alive(self) -> Box:
        """What runs commands in it. Raises SandboxGoneError when it does not run."""
        if self._executor is None:
            raise SandboxGoneError(
                "the sandbox does not run: its block has ended."
                if self._closed
                else "the sandbox was not started.",
                hint="Use it inside its `with` block.",
            )
        return self._executor


def _prepared(
    wanted: Spec, report: Report, holding: contextlib.ExitStack
) -> tuple[Settings, Plan, Parts]:
    """All that takes time and needs no machine yet."""
    environ = dict(os.environ)
    spec = load_with_recipes(
        wanted.folder,
        wanted.overrides(),
        environ,
        report,
        config_file=wanted.config_file,
        force=wanted.force,
        capacity=capacity(),
    )
    for warning in spec.warnings:
        report(Notice(level="warning", message=warning))
    facts = host_facts(report)
    spec, notices = holding.enter_context(working_copy(spec))
    for message in notices:
        report(Notice(level="info", message=message))
    plan = make_plan(spec, facts, environ)
    sweep()
    return spec, plan, prepare(plan, facts, report)


def _to_log(event: Event) -> None:
    if isinstance(event, Notice):
        _LOG.log(_LEVELS.get(event.level, logging.INFO), "%s", event.message)
