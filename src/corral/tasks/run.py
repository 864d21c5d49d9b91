"""One task, from its command to its result."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ..agents import Recipe, find
from ..channel import Execution, Stream
from ..channel.failures import printable
from ..errors import ChannelError, CorralError, GuestError, SandboxGoneError, StreamResetError
from ..spec import Action
from . import changes, commands, parse, prompts
from .commands import Command, Place
from .model import Heartbeat, Llm, Outgoing, Prompt, Result, Task, Transcript, Usage
from .output import Collector, Events, Pieces
from .spending import Account, Asked, Meter
from .summary import Status

GRACE = 2.0  # seconds between TERM and the end of everything
DRAINING = 5.0  # seconds for the output of what has ended
ENDING = 15.0  # seconds for the guest to tell that it has ended
MAX_LLM = 500  # messages of one task

Tell = Callable[[Outgoing], None]


class Begin(Protocol):
    """Starts a command of an agent; leaving the block means that it is of no more interest."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        workdir: str | None,
        agent: int,
    ) -> AbstractAsyncContextManager[Execution]:
        """See `Sandbox.exec`, with its errors."""


async def _at_once() -> None:
    return None


async def _no_cpu(_agent: int) -> float | None:
    return None


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What every task of a sandbox is run with.

    recipe: finds one by name; raises ConfigError. cpu: seconds that an agent's processes have had,
    None when that is not known. ready: waits until commands can begin, and be ended.
    """

    begin: Begin
    actions: Mapping[str, Action]
    meter: Meter
    recipe: Callable[[str], Recipe] = find
    cpu: Callable[[int], Awaitable[float | None]] = _no_cpu
    ready: Callable[[], Awaitable[None]] = _at_once


class Work:
    """A task that is to be done, or is. tell: called with what happens meanwhile."""

    def __init__(self, number: str, task: Task, place: Place, tell: Tell) -> None:
        self.id = number
        self.task = task
        self.place = place
        self.queued = time.time()
        self.began: float | None = None
        self.cancelled = asyncio.Event()
        self.over = False  # its command has ended, its result is under way
        self._tell = tell
        self._collected = {"stdout": Collector(), "stderr": Collector()}
        self._events = Events("text")
        self._llm = 0

    def tell(self, message: Outgoing) -> None:
        """Something happens."""
        self._tell(message)

    @property
    def agent(self) -> int:
        """Who does it."""
        return self.place.agent

    def heartbeat(self, ahead: int = 0) -> Heartbeat:
        """That it is there."""
        began = self.began
        return Heartbeat(
            id=self.id,
            agent=self.agent,
            state="queued" if began is None else "running",
            seconds=round(time.time() - (began or self.queued), 3),
            ahead=ahead,
            output=sum(each.size for each in self._collected.values()),
        )

    async def run(self, tools: Tools) -> Result:
        """Do it. Nothing but its own cancellation keeps it from a result."""
        self.began = time.time()
        self._tell(self.heartbeat())
        folder = Path(self.place.folder) if self.place.folder else None
        try:
            command = self._command(tools)
        except CorralError as error:
            return self.failed(error)
        before = await asyncio.to_thread(changes.look, folder) if folder else None
        self._events = Events(command.output)
        await tools.ready()
        cpu = await tools.cpu(self.agent)
        began = time.monotonic()
        with tools.meter.following(self.agent, self._asked) as account:
            try:
                status, exit_status, problem = await self._attend(command, tools)
            except CorralError as error:
                return self.failed(error)
            self.over = True
            seconds = time.monotonic() - began
            await account.settled()
        used = await tools.cpu(self.agent)
        after = await asyncio.to_thread(changes.look, folder) if folder else None
        return self.result(
            status,
            exit_status=exit_status,
            error=problem,
            usage=_usage(seconds, None if used is None or cpu is None else used - cpu, account),
            changes=changes.compare(before, after),
        )

    def _command(self, tools: Tools) -> Command:
        if isinstance(self.task, Prompt):
            recipe = tools.recipe(prompts.recipe_name(self.task, self.place))
            return prompts.command(self.task, self.place, recipe)
        return commands.command(self.task, self.place, tools.actions)

    def result(self, status: Status, **more: object) -> Result:
        """Its end, with all that it wrote."""
        out, err = self._collected["stdout"], self._collected["stderr"]
        known = Result(
            id=self.id,
            agent=self.agent,
            action=parse.action_of(self.task),
            status=status,
            stdout=out.text(),
            stdout_bytes=out.size,
            stdout_truncated=out.truncated,
            stderr=err.text(),
            stderr_bytes=err.size,
            stderr_truncated=err.truncated,
            answer=self._events.answer,
            events=self._events.kept,
            events_truncated=self._events.truncated,
            queued=round(self.queued, 3),
            began=None if self.began is None else round(self.began, 3),
            ended=round(time.time(), 3),
        )
        return msgspec.structs.replace(known, **more)

    def failed(self, error: CorralError) -> Result:
        """It could not be done."""
        gone = isinstance(error, SandboxGoneError)
        return self.result(
            "lost" if gone else "error", error=printable(error.message), hint=error.hint
        )

    async def _attend(
        self, command: Command, tools: Tools
    ) -> tuple[Status, int | None, str | None]:
        """Run the command; how it ended, its status, what is to be said of that."""
        async with tools.begin(
            command.argv,
            environment=command.environment,
            workdir=command.workdir,
            agent=self.agent,
        ) as execution:
            readers = [asyncio.create_task(self._read("stdout", execution.stdout), name="task-out")]
            if execution.stderr is not None:
                reading = self._read("stderr", execution.stderr)
                readers.append(asyncio.create_task(reading, name="task-err"))
            feeding = asyncio.create_task(_feed(execution.stdin, command.stdin), name="task-stdin")
            try:
                how = await self._end_of(execution, command.timeout)
                if how != "ended":
                    await tools.ready()
                    return await self._cut_short(execution, readers, how, command.timeout)
                await _read_to_the_end(readers)
                status = await execution.wait()
                return ("failed" if status or self._events.failed else "done"), status, None
            finally:
                for task in (*readers, feeding):
                    task.cancel()
                for stream in (execution.stdin, execution.stdout, execution.stderr):
                    if stream is not None:
                        stream.reset("not needed any more")

    async def _end_of(
        self,
        execution: Execution,
        timeout: float | None,  # noqa: ASYNC109 - it ends the command
    ) -> Literal["ended", "timeout", "cancelled"]:
        """Until it has ended, or is to."""
        ended = asyncio.create_task(execution.wait(), name="task-end")
        cancelled = asyncio.create_task(self.cancelled.wait(), name="task-cancel")
        try:
            await asyncio.wait(
                (ended, cancelled), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if ended.done():
                ended.result()  # raises when the sandbox is gone
                return "ended"
            return "cancelled" if cancelled.done() else "timeout"
        finally:
            ended.cancel()
            cancelled.cancel()

    async def _cut_short(
        self,
        execution: Execution,
        readers: list[asyncio.Task[None]],
        how: Literal["timeout", "cancelled"],
        timeout: float | None,  # noqa: ASYNC109 - for the message
    ) -> tuple[Status, int | None, str | None]:
        """End the command with all that it has started, however that hid."""
        said = (
            f"it ran longer than {timeout:g} seconds and was ended."
            if how == "timeout"
            else "it was cancelled."
        )
        status: int | None = None
        try:
            status = await end_tree(execution)
        except (ChannelError, GuestError, TimeoutError) as error:
            said += f" The sandbox did not tell that all of it has ended: {error}"
        with contextlib.suppress(TimeoutError, CorralError):
            async with asyncio.timeout(DRAINING):
                await asyncio.gather(*readers)
        return how, status, said

    async def _read(self, name: Literal["stdout", "stderr"], stream: Stream) -> None:
        collected, pieces = self._collected[name], Pieces()
        while True:
            try:
                data = await stream.read(1 << 16)
            except StreamResetError:  # we have given it up ourselves
                data = b""
            collected.feed(data)
            if name == "stdout":
                self._events.feed(data)
            for text in pieces.feed(data, final=not data):
                self._tell(Transcript(id=self.id, agent=self.agent, stream=name, text=text))
            if not data:
                return

    def _asked(self, asked: Asked) -> None:
        self._llm += 1
        if self._llm <= MAX_LLM:
            self._tell(Llm(id=self.id, agent=self.agent, **msgspec.structs.asdict(asked)))


async def _read_to_the_end(readers: Iterable[asyncio.Task[None]]) -> None:
    """What a command that has ended wrote. A guest ends that before it tells of the command's end.

    Raises ChannelError for one that does not.
    """
    try:
        async with asyncio.timeout(DRAINING):
            await asyncio.gather(*readers)
    except TimeoutError:
        raise ChannelError(
            "the sandbox did not end the command's output.",
            hint="Something in it is at fault, or hostile: begin anew with another sandbox.",
        ) from None


async def end_tree(execution: Execution) -> int:
    """TERM to the group of a command, a moment later the end of all that it started.

    Returns its status. Raises ChannelError, TimeoutError when the guest does not do it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await execution.signal(signal.SIGTERM, group=True)
            await execution.wait()
    async with asyncio.timeout(ENDING):
        await execution.end()
        return await execution.wait()


async def _feed(stdin: Stream, data: bytes) -> None:
    with contextlib.suppress(CorralError):  # it reads no more, or is gone: others tell that
        if data:
            await stdin.write(data)
        await stdin.end()


def _usage(seconds: float, cpu: float | None, account: Account) -> Usage:
    return Usage(
        seconds=round(seconds, 3),
        # A jail that was made again meanwhile counts from 0.
        cpu_seconds=None if cpu is None or cpu < 0 else round(cpu, 3),
        requests=account.requests,
        input_tokens=account.input_tokens,
        output_tokens=account.output_tokens,
        usd=None if account.usd is None else round(account.usd, 8),
    )
