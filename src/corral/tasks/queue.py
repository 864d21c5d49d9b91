"""The tasks of one sandbox: given by anybody, done one at a time for each agent, answered later."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Self

import msgspec

from ..errors import CorralError, TaskError
from . import parse
from .commands import Place
from .history import LOST, Entry, History, Remembered, lost
from .model import Llm, Outgoing, Result, Task, Transcript
from .run import Tools, Work
from .summary import State, Summary

MAX_QUEUED = 500  # of one sandbox, those that run with them
BEAT = 10.0  # seconds between heartbeats
MAX_WAITING = 4096  # messages for one who does not read them

NOT_BEGUN = "it was cancelled before it began."
_DIGITS = 9  # of a number that we have given; a longer one is somebody's own id
_TOGETHER = 4096  # characters of a remembered message that take more
_LAST = 2.0  # seconds, at the sandbox's end, for the results of what has ended

Listener = Callable[[Outgoing], None]


class _Watcher:
    """Messages for one who follows a task, those first that came before him. A result is never
    left out.
    """

    def __init__(self, past: Iterable[Outgoing]) -> None:
        self.messages: collections.deque[Outgoing] = collections.deque(past)
        self.more = asyncio.Event()

    def put(self, message: Outgoing) -> None:
        if isinstance(message, Result) or len(self.messages) < MAX_WAITING:
            self.messages.append(message)
            self.more.set()


class _Given:
    """A task between being taken and its result."""

    def __init__(self, number: str, task: Task, place: Place, listener: Listener) -> None:
        self.watchers: list[_Watcher] = []
        self.past: list[Outgoing] = []  # as bounded as what a task may say
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._listener = listener
        self.work = Work(number, task, place, self.tell)

    def tell(self, message: Outgoing) -> None:
        """To all who follow it."""
        self._listener(message)
        if isinstance(message, Transcript):
            self._remember(message)
        elif isinstance(message, Llm):
            self.past.append(message)
        for watcher in self.watchers:
            watcher.put(message)

    def _remember(self, message: Transcript) -> None:
        """With what came just before: a guest may write a byte at a time, to two streams."""
        for index in range(len(self.past) - 1, max(-1, len(self.past) - 3), -1):
            before = self.past[index]
            if isinstance(before, Transcript) and before.stream == message.stream:
                if len(before.text) >= _TOGETHER:
                    break
                text = before.text + message.text
                self.past[index] = msgspec.structs.replace(before, text=text)
                return
        self.past.append(message)

    def summary(self, result: Result | None = None) -> Summary:
        """It in short."""
        work = self.work
        state: State = "queued" if work.began is None else "running"
        return Summary(
            id=work.id,
            agent=work.agent,
            action=parse.action_of(work.task),
            what=parse.what(work.task),
            state=state if result is None else "ended",
            status=None if result is None else result.status,
            queued=round(work.queued, 3),
            began=None if work.began is None else round(work.began, 3),
            ended=None if result is None else result.ended,
        )


class Tasks:
    """All of a sandbox's. To be used as a context manager around its life.

    places: its agents, by number. tools: how their commands are run. history: what is kept.
    listener: called with every message, for logs.
    """

    def __init__(
        self,
        places: Mapping[int, Place],
        tools: Tools,
        history: History | None = None,
        listener: Listener = lambda _message: None,
    ) -> None:
        self._places = places
        self._tools = tools
        self._history = history or Remembered()
        self._listener = listener
        self._given: dict[str, _Given] = {}
        self._taking = asyncio.Lock()  # one after another, in the order they come
        self._lanes: dict[str, collections.deque[_Given]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._beats: asyncio.Task[None] | None = None
        self._next = 1
        self._closed = False

    async def __aenter__(self) -> Self:
        """Look at what is kept: what had not ended then is lost."""
        for summary in await asyncio.to_thread(self._history.summaries):
            if summary.id.isdecimal() and len(summary.id) <= _DIGITS:
                self._next = max(self._next, int(summary.id) + 1)
            if summary.state != "ended":
                gone = lost(summary, LOST)
                with contextlib.suppress(TaskError):
                    await asyncio.to_thread(self._history.put, gone)
        self._beats = asyncio.create_task(self._beat(), name="task-heartbeats")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """What has not ended is lost."""
        self.stop()
        if self._beats is not None:
            self._beats.cancel()
        over = [given.done for given in self._given.values() if given.work.over]
        if over:
            await asyncio.wait(over, timeout=_LAST)
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for given in list(self._given.values()):
            await self._finish(given, given.work.result("lost", error=LOST))

    def stop(self) -> None:
        """Take and begin no more; those that run may end."""
        self._closed = True

    # What is asked for

    async def submit(self, task: Task, *, agent: int = 1, number: str | None = None) -> str:
        """Take a task; returns its id. It is done when those before it are. Raises TaskError."""
        place = self._places.get(agent)
        if place is None:
            known = ", ".join(map(str, sorted(self._places)))
            raise TaskError(f"there is no agent {agent}.", hint=f"There are: {known}.")
        async with self._taking:
            number = await self._number(number)
            if self._closed:
                raise TaskError("the sandbox is stopping, and takes no more tasks.")
            if len(self._given) >= MAX_QUEUED:
                raise TaskError(
                    f"{MAX_QUEUED} tasks wait or run already.", hint="Wait for some to end."
                )
            given = _Given(number, task, place, self._listener)
            self._given[number] = given
            # Before anybody is told the id: it can be asked for whatever happens then.
            try:
                await asyncio.to_thread(self._history.put, Entry(summary=given.summary()))
            except BaseException:
                self._given.pop(number, None)
                raise
            self._enqueue(given)
        return number

    async def result(self, number: str) -> Result:
        """How a task ended, once it has. Raises TaskError for one that is not known."""
        given = self._given.get(number)
        if given is not None:
            return await asyncio.shield(given.done)
        entry = await asyncio.to_thread(self._history.get, number)
        if entry is None or entry.result is None:
            raise unknown(number)
        return entry.result

    async def follow(self, number: str) -> AsyncGenerator[Outgoing, None]:
        """What a task has said and says; its result is the last. Raises TaskError.

        Of one that has ended only its result is known.
        """
        given = self._given.get(number)
        if given is None:
            yield await self.result(number)
            return
        watcher = _Watcher([given.work.heartbeat(self._ahead(given)), *given.past])
        given.watchers.append(watcher)
        try:
            while True:
                while watcher.messages:
                    message = watcher.messages.popleft()
                    yield message
                    if isinstance(message, Result):
                        return
                watcher.more.clear()
                await watcher.more.wait()
        finally:
            given.watchers.remove(watcher)

    async def cancel(self, number: str) -> None:
        """End a task; one that has ended stays as it is. Raises TaskError for none."""
        given = self._given.get(number)
        if given is None:
            if await asyncio.to_thread(self._history.get, number) is None:
                raise unknown(number)
            return
        given.work.cancelled.set()
        lane = self._lanes.get(given.work.place.lane)
        if lane is not None and given in lane:  # it has not begun: nothing is to be ended
            lane.remove(given)
            result = given.work.result("cancelled", error=NOT_BEGUN)
            # Not by whom asks, who may give up meanwhile: others wait for its result.
            self._spawn(self._finish(given, result), "cancelled-task")
            await asyncio.shield(given.done)

    async def listed(self) -> list[Summary]:
        """Those that are known, the oldest first."""
        kept = await asyncio.to_thread(self._history.summaries)
        now = {number: given.summary() for number, given in self._given.items()}
        old = [summary for summary in kept if summary.id not in now]
        return sorted([*old, *now.values()], key=lambda summary: summary.queued)

    def what(self, agent: int) -> str | None:
        """What an agent works on, in a few printable words."""
        for given in self._given.values():
            if given.work.agent == agent and given.work.began is not None:
                return given.summary().what
        return None

    # How it is done

    async def _number(self, wanted: str | None) -> str:
        if wanted is None:
            while await self._is_known(str(self._next)):  # it was somebody's own id
                self._next += 1
            number, self._next = str(self._next), self._next + 1
            return number
        parse.checked_id(wanted)
        if await self._is_known(wanted):
            raise _known(wanted)
        return wanted

    async def _is_known(self, number: str) -> bool:
        if number in self._given:
            return True
        return await asyncio.to_thread(self._history.get, number) is not None

    def _enqueue(self, given: _Given) -> None:
        name = given.work.place.lane
        if name in self._lanes:
            self._lanes[name].append(given)
            return
        lane = self._lanes[name] = collections.deque([given])
        self._spawn(self._work(name, lane), f"tasks-{name}")

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        worker = asyncio.create_task(work, name=name)
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)
        return worker

    async def _work(self, name: str, lane: collections.deque[_Given]) -> None:
        """Do what is in a lane until it is empty."""
        try:
            while lane and not self._closed:
                await self._do(lane.popleft())
        finally:
            del self._lanes[name]

    async def _do(self, given: _Given) -> None:
        try:
            if given.work.cancelled.is_set():  # while it was being taken
                result = given.work.result("cancelled", error=NOT_BEGUN)
            else:
                result = await given.work.run(self._tools)
        except Exception as error:
            result = given.work.failed(CorralError(_fault(error)))
        await self._finish(given, result)

    async def _finish(self, given: _Given, result: Result) -> None:
        if given.done.done():
            return
        entry = Entry(summary=given.summary(result), result=result)
        try:
            await asyncio.to_thread(self._history.put, entry)
        except Exception as error:  # who waits has it all the same
            why = error.message if isinstance(error, TaskError) else _fault(error)
            said = " ".join(filter(None, (result.error, why)))
            result = msgspec.structs.replace(result, error=said)
        if not given.done.done():
            given.done.set_result(result)
            self._given.pop(given.work.id, None)
            given.tell(result)

    def _ahead(self, given: _Given) -> int:
        lane = self._lanes.get(given.work.place.lane, ())
        return list(lane).index(given) + 1 if given in lane else 0

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            for given in list(self._given.values()):
                given.tell(given.work.heartbeat(self._ahead(given)))


def _fault(error: Exception) -> str:
    """A fault of ours, in words: the loop's handler, and so a keeper's log, tells more of it."""
    text = f"internal error: {type(error).__name__}: {error}"
    asyncio.get_running_loop().call_exception_handler({"message": text, "exception": error})
    return text


def unknown(number: str) -> TaskError:
    """The error for a task that nobody knows of."""
    from ..spec.text import printable

    return TaskError(
        f"there is no task {printable(number, 64)}.",
        hint="Those that are known: corral task list NAME",
    )


def _known(number: str) -> TaskError:
    return TaskError(
        f"there is a task {number} already.",
        hint=f"Give this one another id, or ask for that one: corral task result NAME {number}",
    )
