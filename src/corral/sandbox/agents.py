"""The agents of a running sandbox: how they are, and a new jail for one that has lost its own.

What a guest says of its agents is checked, and changes nothing but what is shown of them and, where
the plan says so, when a jail is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated

import msgspec

from ..channel import Channel
from ..channel.failures import printable
from ..errors import ChannelError, CorralError, GuestError
from ..events import AgentBecame, Notice, Report
from ..plan import Agent, Plan

CALL_TIMEOUT = 60.0  # seconds for a jail to be made, under emulation and on a busy host
FIRST_DELAY, MAX_DELAY = 1.0, 60.0  # seconds before a jail is made again; each try waits longer
MAX_RESTARTS = 10  # in a row; an agent that was up for WELL seconds begins to count anew
WELL = 300.0
STUCK_LIMIT = 60.0  # seconds that an agent may be stuck before it is ended, to be made again
MAX_EVENTS = 30  # about one agent in EVENT_SPAN seconds: a guest may say what it likes
EVENT_SPAN = 60.0

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Reason = Annotated[str, msgspec.Meta(max_length=256)]


class State(enum.StrEnum):
    """What an agent is doing."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    STUCK = "stuck"
    DEAD = "dead"


_SETTLED = frozenset((State.IDLE, State.WORKING))  # the commands' own events tell these apart


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent is.

    reason: why it is stuck or dead. pids: processes and threads. memory: bytes, of what it keeps in
    its temporary file systems, too. cpu: seconds. oom_kills: processes that were ended for lack of
    memory. commands: that run. quiet: seconds since one of them wrote something; heard: since its
    jail gave a sign of life; None for never. restarts: how often its jail was made again. What the
    guest's kernel does not count is None.
    """

    number: int
    state: State
    reason: str = ""
    pids: int | None = None
    memory: int | None = None
    cpu: float | None = None
    oom_kills: int = 0
    commands: int = 0
    quiet: float | None = None
    heard: float | None = None
    restarts: int = 0


class _Told(msgspec.Struct):
    """The notification `agent`."""

    number: _Count
    state: State
    reason: _Reason = ""


class _Row(_Told):
    """One agent in the answer to `agents`."""

    pids: _Count | None = None
    memory: _Count | None = None
    cpu_usec: _Count | None = None
    oom_kills: _Count = 0
    commands: _Count = 0
    quiet: _Seconds | None = None
    heard: _Seconds | None = None


class _Answer(msgspec.Struct):
    agents: Annotated[list[_Row], msgspec.Meta(max_length=4096)]


class _Life:
    """What is known of one agent. plan: of it. intended: its end was asked for."""

    def __init__(self, plan: Agent) -> None:
        self.plan = plan
        self.state = State.STARTING
        self.reason = ""
        self.up: float | None = None  # since when, by time.monotonic()
        self.intended = False
        self.restarts = 0
        self.tries = 0  # in a row
        self.left = False  # after so many tries, which has been told
        self.restarting: asyncio.Task[None] | None = None
        self.overdue: asyncio.TimerHandle | None = None
        self.told: list[float] = []  # when there were events about it, lately


class Agents:
    """All agents of one sandbox. machine_id: of their jails, in this machine."""

    def __init__(self, plan: Plan, channel: Channel, report: Report) -> None:
        self.machine_id = secrets.token_hex(16)
        self._channel = channel
        self._report = report
        self._lives = {agent.number: _Life(agent) for agent in plan.agents}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat = time.monotonic()
        channel.handle("agent", self._changed)
        channel.handle("heartbeat", self._heard)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Agents]:
        """While inside, jails are made again as the plan says."""
        try:
            yield self
        finally:
            for life in self._lives.values():
                _cancel(life.overdue)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def silent(self) -> float:
        """Seconds since the guest's supervisor gave a sign of life."""
        return time.monotonic() - self._beat

    def state(self, number: int) -> State:
        """The state of an agent, as the guest said last."""
        return self._lives[number].state

    async def listed(self) -> tuple[AgentStatus, ...]:
        """How all are, asked of the guest now. Raises ChannelError, GuestError."""
        answer = await self._channel.call("agents", {}, timeout=CALL_TIMEOUT)
        try:
            rows = {each.number: each for each in msgspec.convert(answer, _Answer).agents}
        except msgspec.ValidationError as error:
            raise ChannelError(f"the guest reported agents that make no sense: {error}.") from error
        return tuple(self._status(number, rows.get(number)) for number in sorted(self._lives))

    def _status(self, number: int, row: _Row | None) -> AgentStatus:
        life = self._lives[number]
        if row is None:
            return AgentStatus(number=number, state=life.state, restarts=life.restarts)
        return AgentStatus(
            number=number,
            state=row.state,
            reason=printable(row.reason),
            pids=row.pids,
            memory=row.memory,
            cpu=None if row.cpu_usec is None else row.cpu_usec / 1e6,
            oom_kills=row.oom_kills,
            commands=row.commands,
            quiet=row.quiet,
            heard=row.heard,
            restarts=life.restarts,
        )

    async def kill(self, number: int) -> None:
        """End every process of an agent: only the policy `always` makes its jail again."""
        if (life := self._lives.get(number)) is not None:
            life.intended = True
        await self._channel.call("kill", {"agent": number}, timeout=CALL_TIMEOUT)

    # What the guest says

    def _heard(self, _params: dict[str, object]) -> None:
        self._beat = time.monotonic()

    def _changed(self, params: dict[str, object]) -> None:
        try:
            told = msgspec.convert(params, _Told)
        except msgspec.ValidationError as error:
            raise ChannelError(
                f"the guest reported an agent that makes no sense: {error}."
            ) from error
        life = self._lives.get(told.number)
        if life is None:
            raise ChannelError("the guest reported an agent that there is not.")
        self._beat = time.monotonic()
        if told.state is life.state:
            return
        before, life.state, life.reason = life.state, told.state, printable(told.reason)
        if told.state in _SETTLED and life.up is None:
            life.up = time.monotonic()
        if not {before, told.state} <= _SETTLED:
            self._tell(life)
        _cancel(life.overdue)
        if told.state is State.STUCK and life.plan.restart != "never":
            self._arm(life)
        if told.state is State.DEAD:
            self._died(life)

    def _tell(self, life: _Life) -> None:
        now = time.monotonic()
        life.told = [each for each in life.told if each > now - EVENT_SPAN]
        if len(life.told) < MAX_EVENTS:
            life.told.append(now)
            number = life.plan.number
            self._report(AgentBecame(agent=number, state=life.state.value, reason=life.reason))

    # Making a jail again

    def _died(self, life: _Life) -> None:
        intended, life.intended = life.intended, False
        if life.up is not None and time.monotonic() - life.up >= WELL:
            life.tries, life.left = 0, False
        life.up = None
        wanted = life.plan.restart == "always" or (
            life.plan.restart == "on-failure" and not intended
        )
        if wanted and not life.left and life.restarting is None:
            life.restarting = self._spawn(life, self._restart)

    def _spawn(
        self, life: _Life, work: Callable[[_Life], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        async def do() -> None:
            with contextlib.suppress(CorralError):  # the sandbox ends, which others tell
                await work(life)

        task = asyncio.create_task(do(), name=f"agent-{life.plan.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _arm(self, life: _Life) -> None:
        """Give it so long to come to itself."""
        _cancel(life.overdue)
        loop = asyncio.get_running_loop()
        life.overdue = loop.call_later(STUCK_LIMIT, self._spawn, life, self._give_up)

    async def _give_up(self, life: _Life) -> None:
        if life.state is State.STUCK:
            try:
                await self._channel.call("kill", {"agent": life.plan.number}, timeout=CALL_TIMEOUT)
            except (ChannelError, GuestError):
                if self._channel.failure is not None:
                    raise
                if life.state is State.STUCK:
                    self._arm(life)

    async def _restart(self, life: _Life) -> None:
        """Until it is up again, or has been tried often enough."""
        try:
            while life.state is State.DEAD:
                if life.tries >= MAX_RESTARTS:
                    life.left = True
                    self._report(
                        Notice(
                            level="warning",
                            message=f"agent {life.plan.number} ended {life.tries} times in a row "
                            f"({life.reason}) and is left as it is.",
                        )
                    )
                    return
                await asyncio.sleep(min(FIRST_DELAY * 2**life.tries, MAX_DELAY))
                life.tries += 1
                life.restarts += 1
                await self._make(life)
        finally:
            life.restarting = None

    async def _make(self, life: _Life) -> None:
        agent = life.plan
        setup = {**agent.setup, "machine_id": self.machine_id}
        try:
            await self._channel.call("jail", agent.jail, timeout=CALL_TIMEOUT)
            await self._channel.call("agent", setup, timeout=CALL_TIMEOUT)
        except GuestError as error:
            life.state, life.reason = State.DEAD, printable(error.message)
        except ChannelError as error:  # not answered in time, if the channel lives
            await self._unmake(agent.number)
            life.state, life.reason = State.DEAD, printable(error.message)
            self._tell(life)

    async def _unmake(self, number: int) -> None:
        """End what the guest may yet have made: it hears of this after that.

        However long the answer takes: a machine that is halted, or being saved, gives it when it
        goes on, and until then nothing can be tried.
        """
        try:
            await self._channel.call("kill", {"agent": number})
        except (ChannelError, GuestError):
            if self._channel.failure is not None:
                raise


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
