"""A keeper in this process, whose sandbox runs scripts instead of programs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from corral.channel import Stream
from corral.errors import CommandNotFoundError, SandboxGoneError, StreamResetError
from corral.events import silent
from corral.journal import Journal
from corral.keeper import messages
from corral.keeper.keeper import Keeper
from corral.keeper.model import VERSION, Problem, Request, Status
from corral.keeper.server import Server
from corral.keeper.store import Record, boot_id
from corral.plan import Plan
from corral.policy import Publish
from corral.sandbox import AgentStatus, Execution, Usage
from corral.sandbox.agents import State
from corral.sandbox.debug import DebugShell
from corral.sandbox.ports import Port, Ports
from corral.sandbox.run_folder import run_folder
from corral.spec import load_spec
from corral_guest.wire import WINDOW

_numbers = itertools.count(1)


class Pipe:
    """What the keeper sees as a stream of the guest: bounded, as that is."""

    def __init__(self, *, given_up_is_end: bool = False) -> None:
        self._given_up_is_end = given_up_is_end  # of a command's input, as in the guest
        self._data = bytearray()
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self.reset_with: str | None = None

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and self._failure is None:
            self._changed.clear()
            await self._changed.wait()

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self._until(lambda: len(self._data) < WINDOW)
            if self._failure is not None:
                raise self._failure
            room = WINDOW - len(self._data)
            self._data += view[:room]
            view = view[room:]
            self._changed.set()

    async def read(self, limit: int = 65536) -> bytes:
        await self._until(lambda: bool(self._data) or self._ended)
        if not self._data and self._failure is not None and not self._given_up_is_end:
            raise self._failure
        data = bytes(self._data[:limit])
        del self._data[:limit]
        self._changed.set()
        return data

    async def end(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._ended = True
        self._changed.set()

    def reset(self, reason: str = "") -> None:
        if self._failure is None and not self._ended:
            self.reset_with = reason
            self.fail(StreamResetError(f"given up: {reason}"))

    def fail(self, failure: Exception) -> None:
        self._failure = failure
        self._changed.set()

    @property
    def waiting(self) -> int:
        """Bytes that were written and not read."""
        return len(self._data)


class Program:
    """One execution: the script's side."""

    def __init__(self, argv: Sequence[str], options: dict[str, Any]) -> None:
        self.argv = list(argv)
        self.options = options
        self.stdin, self.stdout, self.stderr = Pipe(given_up_is_end=True), Pipe(), Pipe()
        self.signals: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        self.sizes: list[tuple[int, int]] = []
        self.ended = False


Script = Callable[[Program], Awaitable[int]]


class ScriptedExecution:
    """The keeper's side."""

    def __init__(self, program: Program, status: asyncio.Future[int], gone: asyncio.Event) -> None:
        self._program = program
        self._status = status
        self._gone = gone
        self.stdin, self.stdout = program.stdin, program.stdout
        self.stderr = None if program.options.get("terminal") else program.stderr

    async def wait(self) -> int:
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait((self._status, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not self._status.done():
            raise SandboxGoneError("the machine is gone.")
        return self._status.result()

    async def signal(self, number: int, *, group: bool = False) -> None:
        self._program.signals.put_nowait((number, group))

    @property
    def status(self) -> int | None:
        return self._status.result() if self._status.done() else None

    async def end(self) -> None:
        self._program.ended = True
        self._program.signals.put_nowait((9, True))

    async def resize(self, rows: int, columns: int) -> None:
        self._program.sizes.append((rows, columns))


class ScriptedBox:
    """A sandbox whose programs are functions by name."""

    plan: Plan  # of no machine: nobody asks
    debug_shells: tuple[DebugShell, ...] = ()

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.programs: list[Program] = []
        self.calls: list[object] = []
        self.gone = asyncio.Event()
        self.ports = Ports()
        self._tasks: set[asyncio.Future[int]] = set()

    async def exec(self, argv: Sequence[str], **options: Any) -> Execution:
        if argv[0] not in self.scripts:
            raise CommandNotFoundError(f"{argv[0]}: not found.", hint="Look elsewhere.")
        program = Program(argv, options)
        self.programs.append(program)

        async def work() -> int:
            status = await self.scripts[argv[0]](program)
            for pipe in (program.stdout, program.stderr):
                with contextlib.suppress(StreamResetError):
                    await pipe.end()
            program.stdin.reset("closed")
            return status

        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        return cast("Execution", ScriptedExecution(program, task, self.gone))

    async def kill(self, agent: int = 1) -> None:
        self.calls.append(("kill", agent))

    async def sync(self) -> None:
        self.calls.append("sync")

    async def pause(self) -> None:
        self.calls.append("pause")

    async def resume(self) -> None:
        self.calls.append("resume")

    async def usage(self, *, myself: bool = False) -> Usage:
        assert myself
        return Usage(processes=12, cpu=1.5, memory=64 << 20, ram=32 << 20, disk=0)

    async def agents(self) -> tuple[AgentStatus, ...]:
        return (
            AgentStatus(number=1, state=State.WORKING, pids=4, memory=5 << 20, cpu=1.25, quiet=2.0),
            AgentStatus(number=2, state=State.DEAD, reason="it had no memory left", oom_kills=3),
        )

    async def publish(self, publish: Publish) -> Port:
        return self.ports.bind(publish)

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        return await self.ports.remove(port, address)

    async def published(self) -> tuple[Port, ...]:
        return self.ports.listed()

    async def save(
        self, memory: int, state: int, meanwhile: Callable[[], None] | None = None
    ) -> None:
        raise NotImplementedError("checkpoints have tests of their own")

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


class Kept:
    """All of it, for one test."""

    def __init__(self, record: Record, keeper: Keeper, server: Server, box: ScriptedBox) -> None:
        self.record, self.keeper, self.server, self.box = record, keeper, server, box
        self.name = record.name
        self.folder = Path()

    async def stopped(self) -> None:
        """What the keeper's life does when it is told to stop."""
        await self.keeper.stopping.wait()
        await self.keeper.wind_down()
        await self.server.dismiss(Problem(kind="SandboxGoneError", message="it was stopped."))


@pytest.fixture
def request_kept(project: Path) -> Request:
    """What `corral up` was asked for."""
    spec = load_spec(project, {}, os.environ)
    return Request(spec=spec, environ={}, created=time.time())


@pytest.fixture
def record(request_kept: Request) -> Record:
    """One that exists, with a name of its own."""
    record = Record(f"box-{next(_numbers)}")
    with record.changing():
        record.write_request(request_kept)
    return record


@pytest.fixture
async def kept(record: Record) -> AsyncIterator[Kept]:
    """A keeper that serves."""
    events = Journal(record.folder / "events.jsonl", limit=4096)
    console = Journal(record.folder / "console.log", limit=4096)
    keeper = Keeper(record.name, events, console, silent)
    box = ScriptedBox()

    def hello() -> messages.Hello:
        return messages.Hello(
            version=VERSION,
            name=record.name,
            state=keeper.state,
            accel="tcg",
            carrier="serial",
            user="me",
            workdir="/work",
        )

    server = Server(keeper, hello)
    found = Kept(record, keeper, server, box)
    with record.keeping(), run_folder(record.name) as folder:
        found.folder = folder
        record.write_status(
            Status(
                state="running",
                since=time.time(),
                keeper=os.getpid(),
                boot=boot_id(),
                run_folder=str(folder),
            )
        )
        async with server.listen(folder):
            keeper.up(box)
            async with box.ports:
                yield found
        box.end()
    record.write_status(Status(state="stopped", since=time.time()))
    events.close()
    console.close()


async def read_all(stream: Stream | None) -> bytes:
    """A stream to its end."""
    assert stream is not None
    data = b""
    while piece := await stream.read():
        data += piece
    return data
