"""The life of a keeper: from a request that is kept to a sandbox that ends, and its record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..errors import CorralError, SandboxGoneError
from ..events import Event, Failed, Notice, Phase, Report
from ..journal import Journal
from ..plan import Plan
from ..review.working import summary, working_copy
from ..sandbox import Parts, host_facts, make_plan, prepare, saved, start, sweep
from ..sandbox.appearances import Watch
from ..sandbox.checkpoint import in_thread
from ..sandbox.run_folder import run_folder
from ..templates import Template
from . import leftovers, messages
from .checkpoints import Saver, put_back
from .keeper import STOP_GRACE, Keeper
from .model import VERSION, Problem, Request, State, Status
from .server import Server
from .store import Record, boot_id
from .tasking import tasks_of

DISK = "disk.qcow2"  # in the record's folder
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def keep(
    record: Record,
    report: Report,
    *,
    ready: Callable[[], None],
    abandoned: int = -1,
    console_echo: int | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Start the sandbox of the record and keep it until it is stopped.

    To be called under `record.keeping()`. ready: called when it is up. abandoned: a descriptor that
    can be read (its other end is closed) when nobody waits for that any more. checkpoint: the
    folder of one, of this sandbox or of what it is a fork of, to go on from. Raises what made it
    fail, once that is written down.
    """
    life = _Life(record, report, checkpoint)
    try:
        try:
            life.plan()
            asyncio.run(life.run(ready, abandoned, console_echo))
        except CorralError as error:
            life.failed(error)
            raise
        except BaseException as error:
            life.failed(CorralError(f"the keeper failed: {type(error).__name__}: {error}"))
            raise
    finally:
        life.close()


class _Life:
    """One run of a kept sandbox."""

    def __init__(self, record: Record, report: Report, checkpoint: Path | None) -> None:
        self._record = record
        self._checkpoint = checkpoint
        self._request: Request = record.request()
        self._further = report
        self._events = Journal(record.folder / "events.jsonl")
        self._console = Journal(record.folder / "console.log")
        self._keeper = Keeper(record.name, self._events, self._console, report)
        self._keeper.on_change(self._changed)
        self._status = Status(
            state="starting", since=time.time(), keeper=os.getpid(), boot=boot_id()
        )
        self._notices: list[str] = []
        self._holding = contextlib.ExitStack()
        self._plan: Plan
        self._parts: Parts
        record.write_status(self._status)

    def plan(self) -> None:
        """What can be decided and fetched before anything runs."""
        self._keeper.become("starting")
        request, report = self._request, self._keeper.report
        facts = host_facts(report)
        if request.spec.reviewed:
            report(Phase(name="snapshot", message="copying the workspace"))
        spec, notices = self._holding.enter_context(working_copy(request.spec))
        for message in notices:
            report(Notice(level="info", message=message))
        self._request = request = msgspec.structs.replace(request, spec=spec)
        self._plan = make_plan(spec, facts, request.environ, kept=True)
        sweep()
        self._parts = prepare(self._plan, facts, report)

    async def run(
        self, ready: Callable[[], None], abandoned: int, console_echo: int | None
    ) -> None:
        """Start, serve, end."""
        main = asyncio.current_task()
        assert main is not None
        begun = asyncio.Event()

        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._keeper.stop(0.0 if self._keeper.stopping.is_set() else STOP_GRACE)

        def abandon() -> None:
            loop.remove_reader(abandoned)
            stop()

        for number in _STOPPING:
            loop.add_signal_handler(number, stop)
        if abandoned >= 0:
            loop.add_reader(abandoned, abandon)
        keeper, spec = self._keeper, self._request.spec
        with run_folder(spec.name, keep=self._request.debug) as folder:
            server = Server(keeper, self._hello)
            self._write(run_folder=str(folder))
            async with server.listen(folder):
                stopper = loop.create_task(self._stop_the_start(begun, main), name="stopper")
                try:
                    await self._in_sandbox(folder, ready, abandoned, begun, console_echo)
                except asyncio.CancelledError:
                    self._over("stopped")
                    await server.dismiss(self._farewell("was stopped while it started"))
                    if not keeper.stopping.is_set():
                        raise
                    main.uncancel()
                except CorralError as error:
                    await server.dismiss(Problem.of(error))
                    raise
                else:
                    self._over("stopped")
                    await server.dismiss(self._farewell("was stopped"))
                finally:
                    stopper.cancel()

    async def _stop_the_start(self, begun: asyncio.Event, main: asyncio.Task[None]) -> None:
        await self._keeper.stopping.wait()
        if not begun.is_set():
            main.cancel()

    async def _in_sandbox(
        self,
        folder: Path,
        ready: Callable[[], None],
        abandoned: int,
        begun: asyncio.Event,
        console_echo: int | None,
    ) -> None:
        keeper = self._keeper
        watch = Watch(self._request.spec, self._plan)
        keeper.saver = Saver(self._record, self._request, self._plan, self._parts)
        with contextlib.ExitStack() as going, contextlib.ExitStack() as files:
            going.callback(self._ended, watch, begun)
            leftovers.sweep(self._record)
            template = await in_thread(lambda: self._saved(files))
            async with start(
                self._plan,
                self._parts,
                self._keeper.report,
                disk=self._record.folder / DISK,
                folder=folder,
                console=self._console.write,
                console_echo=console_echo,
                keep=self._request.debug,
                saved=template,
                kept=True,
            ) as sandbox:
                files.close()  # what it went on from frees its room when it is removed
                await watch.ready()
                begun.set()
                if abandoned >= 0:
                    asyncio.get_running_loop().remove_reader(abandoned)
                machine = self._plan.machine
                self._write(started=time.time(), accel=machine.accel, carrier=machine.carrier)
                async with tasks_of(keeper, self._request.spec, self._plan, folder.name):
                    keeper.up(sandbox)
                    ready()
                    await sandbox.or_lost(keeper.stopping.wait())
                    await sandbox.or_lost(keeper.wind_down())

    def _saved(self, files: contextlib.ExitStack) -> Template | None:
        """What to go on from, its disk in place: None for a fresh start. It may be much to read."""
        if self._checkpoint is None:
            return None
        found = files.enter_context(saved.opened(self._checkpoint, self._plan, self._parts))
        if found.disk is not None:  # now that all of it is known to be whole
            put_back(found.disk, self._record)
        return found.template

    def _ended(self, watch: Watch, begun: asyncio.Event) -> None:
        self._keeper.box = None
        if begun.is_set():
            self._notices = list(watch.notices())
            found = [("warning", message) for message in self._notices]
            for level, message in (*found, *summary(self._request.spec)):
                self._keeper.report(Notice(level=level, message=message))

    def _hello(self) -> messages.Hello:
        agent = self._plan.agents[0]
        return messages.Hello(
            version=VERSION,
            name=self._record.name,
            state=self._keeper.state,
            accel=self._plan.machine.accel,
            carrier=self._plan.machine.carrier,
            user=dict(agent.environment).get("USER", ""),
            workdir=agent.workdir,
            agents=tuple(each.number for each in self._plan.agents),
        )

    def _farewell(self, how: str) -> Problem:
        name = self._record.name
        return Problem(
            kind=SandboxGoneError.__name__,
            message=f"the sandbox {name} {how}.",
            hint=f"Start it again: corral start {name}",
        )

    # What is written down

    def _changed(self, state: State) -> None:
        if state not in ("stopped", "failed"):
            self._write(state=state, since=time.time())

    def _write(self, **changes: object) -> None:
        fields = {name: getattr(self._status, name) for name in Status.__struct_fields__}
        self._status = Status(**{**fields, **changes})
        self._record.write_status(self._status)

    def _over(self, state: State, problem: Problem | None = None) -> None:
        self._keeper.become(state)
        self._write(
            state=state,
            since=time.time(),
            problem=problem,
            notices=tuple(self._notices),
            run_folder="",
        )

    def failed(self, error: CorralError) -> None:
        """The sandbox ended by this."""
        self._keeper.report(
            Failed(message=error.message, hint=error.hint, status=error.exit_status)
        )
        self._over("failed", Problem.of(error))

    def close(self) -> None:
        """No more comes."""
        self._holding.close()
        self._events.close()
        self._console.close()
        self._keeper.transcripts.close()
        self._keeper.syncing.close()


def progress_only(report: Report) -> Report:
    """A Report that gets only what a user who waits for the start is shown."""

    def pick(event: Event) -> None:
        if isinstance(event, Phase | Notice):
            report(event)

    return pick
