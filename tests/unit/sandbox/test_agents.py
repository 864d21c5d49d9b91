"""What a guest says of its agents, believed no further than it may be, and when jails come again.

The guest is a socket in the test's hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from corral.channel import Channel, serial_pair
from corral.errors import ChannelError
from corral.events import AgentBecame, Event, Notice
from corral.plan import Plan
from corral.sandbox import agents as module
from corral.sandbox.agents import Agents, State
from corral_guest import wire


class Agent(msgspec.Struct):
    """As much of a plan's agent as counts here."""

    number: int
    restart: str
    jail: dict[str, object] = {}
    setup: dict[str, object] = {}


class Guest:
    """Answers calls with what `answers` holds, and says what the test wants."""

    def __init__(self, restart: str) -> None:
        self.port, self._theirs = serial_pair()
        self._theirs.setblocking(False)
        self._wire = wire.Connection()
        self.answers: dict[str, Any] = {}
        self.calls: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.halted = False
        self.events: list[Event] = []
        plan = msgspec.structs.replace(
            msgspec.convert({"name": "x"}, _Named), agents=(Agent(1, restart), Agent(2, "never"))
        )
        self.plan: Plan = plan  # type: ignore[assignment]  # as much of one as counts here

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._theirs, 65536):
            for event in self._wire.receive(data):
                assert isinstance(event, wire.Message)
                call = wire.parse_message(event.body)
                assert isinstance(call, wire.Request)
                answer = self.answers.get(call.method, {})
                if isinstance(answer, str):
                    self._wire.send_message(wire.error(call.id, -32000, answer))
                else:
                    self._wire.send_message(wire.response(call.id, answer))
                self.calls.put_nowait((call.method, call.params))
            if not self.halted:
                await self._flush()

    async def go_on(self) -> None:
        """Answer what was asked while it was halted, in order."""
        self.halted = False
        await self._flush()

    async def _flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._theirs, self._wire.take_output())

    async def say(self, number: object, state: object, reason: object = "") -> None:
        params = {"number": number, "state": state, "reason": reason}
        self._wire.send_message(wire.notification("agent", params))
        await self._flush()

    async def called(self) -> str:
        async with asyncio.timeout(10):
            return (await self.calls.get())[0]

    def became(self) -> list[tuple[int, str, str]]:
        return [
            (each.agent, each.state, each.reason)
            for each in self.events
            if isinstance(each, AgentBecame)
        ]


class _Named(msgspec.Struct):
    name: str
    agents: tuple[Agent, ...] = ()


World = tuple[Guest, Agents, Channel]


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "STUCK_LIMIT", 0.001)
    guest = Guest(getattr(request, "param", "never"))
    served = asyncio.create_task(guest.serve())
    async with await Channel.start(guest.port) as channel:
        agents = Agents(guest.plan, channel, guest.events.append)
        async with agents.watched():
            yield guest, agents, channel
    served.cancel()
    guest._theirs.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what a socket brings has no event
            await asyncio.sleep(0.001)


# What it says


async def test_what_changes_is_an_event_but_for_idle_and_working(world: World) -> None:
    guest, agents, _channel = world
    for state in ("starting", "idle", "working", "idle", "stuck", "working"):
        await guest.say(2, state, "why" if state == "stuck" else "")
    await until(lambda: agents.state(2) is State.WORKING)
    assert guest.became() == [(2, "idle", ""), (2, "stuck", "why"), (2, "working", "")]
    assert agents.state(1) is State.STARTING


@pytest.mark.parametrize(
    ("number", "state", "reason"),
    [
        (3, "idle", ""),
        (0, "idle", ""),
        (-1, "idle", ""),
        ("1", "idle", ""),
        (True, "idle", ""),
        (1 << 62, "idle", ""),
        (1, "asleep", ""),
        (1, None, ""),
        (1, ["idle"], ""),
        (1, "idle", "x" * 257),
        (1, "idle", {}),
    ],
)
async def test_a_guest_that_talks_nonsense_is_cut_off(
    world: World, number: object, state: object, reason: object
) -> None:
    guest, _agents, channel = world
    await guest.say(number, state, reason)
    async with asyncio.timeout(10):
        assert isinstance(await channel.wait_closed(), ChannelError)


async def test_a_reason_cannot_drive_a_terminal(world: World) -> None:
    guest, agents, _channel = world
    await guest.say(1, "dead", "\x1b]0;owned\x07")
    await until(lambda: agents.state(1) is State.DEAD)
    assert "\x1b" not in guest.became()[-1][2]


async def test_a_guest_that_says_much_makes_few_events(world: World) -> None:
    guest, agents, _channel = world
    for _ in range(200):
        await guest.say(2, "stuck")
        await guest.say(2, "idle")
    await guest.say(2, "working")
    await until(lambda: agents.state(2) is State.WORKING)
    assert len(guest.became()) == module.MAX_EVENTS


ROW = {"number": 1, "state": "idle", "pids": 3, "cpu_usec": 2_500_000, "heard": 0.5}


async def test_a_list_holds_all_agents_of_the_plan_and_no_others(world: World) -> None:
    guest, agents, _channel = world
    guest.answers["agents"] = {"agents": [ROW, {**ROW, "number": 99}]}
    first, second = await agents.listed()
    assert (first.state, first.pids, first.cpu, first.memory) == (State.IDLE, 3, 2.5, None)
    assert (second.number, second.state) == (2, State.STARTING)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"agents": {}},
        {"agents": [7]},
        {"agents": [{**ROW, "pids": -1}]},
        {"agents": [{**ROW, "memory": 1.5}]},
        {"agents": [{**ROW, "cpu_usec": 1 << 63}]},
        {"agents": [{**ROW, "quiet": -1}]},
        {"agents": [{**ROW, "state": "fine"}]},
        {"agents": [ROW] * 5000},
    ],
)
async def test_a_list_that_is_none_is_refused(world: World, answer: object) -> None:
    guest, agents, _channel = world
    guest.answers["agents"] = answer
    with pytest.raises(ChannelError, match="make no sense"):
        await agents.listed()


# When a jail is made again


@pytest.mark.parametrize("world", ["on-failure", "always"], indirect=True)
async def test_a_lost_jail_is_made_again(world: World) -> None:
    guest, agents, _channel = world
    await guest.say(1, "idle")
    await guest.say(1, "dead", "it had no memory left")
    assert [await guest.called(), await guest.called()] == ["jail", "agent"]
    await guest.say(1, "starting")
    await guest.say(1, "idle")
    await until(lambda: agents.state(1) is State.IDLE)
    guest.answers["agents"] = {"agents": [ROW]}
    assert (await agents.listed())[0].restarts == 1


@pytest.mark.parametrize("world", ["never", "on-failure", "always"], indirect=True)
async def test_an_end_that_was_asked_for_is_no_failure(
    world: World, request: pytest.FixtureRequest
) -> None:
    guest, agents, _channel = world
    await guest.say(1, "idle")
    await agents.kill(1)
    assert await guest.called() == "kill"
    await guest.say(1, "dead", "the host has ended it")
    await until(lambda: agents.state(1) is State.DEAD)
    if request.node.callspec.params["world"] == "always":
        assert await guest.called() == "jail"
    else:
        await asyncio.sleep(0.05)
        assert guest.calls.empty()


async def test_by_default_a_lost_jail_stays_lost(world: World) -> None:
    guest, agents, _channel = world
    await guest.say(1, "dead")
    await guest.say(1, "stuck")
    await until(lambda: agents.state(1) is State.STUCK)
    await asyncio.sleep(0.05)
    assert guest.calls.empty()


@pytest.mark.parametrize("world", ["on-failure"], indirect=True)
async def test_tries_end_and_take_longer_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RESTARTS", 4)
    guest, agents, _channel = world
    guest.answers["agent"] = "agent: the jail ended while starting"
    delays: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds > 0.0005:
            delays.append(seconds)
        await sleep(0)

    monkeypatch.setattr("corral.sandbox.agents.asyncio.sleep", noted)
    await guest.say(1, "dead")
    async with asyncio.timeout(10):
        while not any(isinstance(each, Notice) for each in guest.events):
            await sleep(0.001)
    assert guest.calls.qsize() == 8
    assert [round(each * 1000) for each in delays if each < 0.5][:4] == [1, 2, 4, 8]
    assert agents.state(1) is State.DEAD


@pytest.mark.parametrize("world", ["on-failure"], indirect=True)
async def test_an_agent_that_stays_stuck_is_ended_and_made_again(world: World) -> None:
    guest, _agents, _channel = world
    await guest.say(1, "stuck", "it gives no sign of life")
    assert await guest.called() == "kill"
    await guest.say(1, "dead", "the host has ended it")
    assert await guest.called() == "jail"


@pytest.mark.parametrize("world", ["on-failure"], indirect=True)
async def test_an_agent_that_comes_to_itself_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_LIMIT", 0.05)
    guest, agents, _channel = world
    await guest.say(1, "stuck")
    await guest.say(1, "idle")
    await until(lambda: agents.state(1) is State.IDLE)
    await asyncio.sleep(0.1)
    assert guest.calls.empty()


@pytest.mark.parametrize("world", ["always"], indirect=True)
async def test_a_jail_that_was_not_answered_in_time_is_ended_and_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the user halts the machine in the middle of it."""
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.05)
    guest, agents, _channel = world
    await guest.say(1, "idle")
    await guest.say(1, "dead", "it had no memory left")
    await until(lambda: agents.state(1) is State.DEAD)
    guest.halted = True
    # What the late answer may have made is ended first, and nothing else is tried meanwhile.
    assert [await guest.called(), await guest.called()] == ["jail", "kill"]
    await asyncio.sleep(0.2)
    assert guest.calls.empty()
    await guest.go_on()
    assert [await guest.called(), await guest.called()] == ["jail", "agent"]
    assert (1, "dead", "the guest did not answer jail within 0.05 seconds.") in guest.became()
    await guest.say(1, "starting")
    await guest.say(1, "idle")
    await until(lambda: agents.state(1) is State.IDLE)


@pytest.mark.parametrize("world", ["always"], indirect=True)
async def test_a_stuck_agent_whose_end_is_not_answered_is_ended_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.05)
    guest, _agents, _channel = world
    guest.halted = True
    await guest.say(1, "stuck", "it gives no sign of life")
    assert [await guest.called(), await guest.called()] == ["kill", "kill"]
    await guest.go_on()
    await guest.say(1, "dead", "the host has ended it")
    while (called := await guest.called()) == "kill":
        pass
    assert called == "jail"


@pytest.mark.parametrize("world", ["always"], indirect=True)
async def test_that_an_agent_is_left_as_it_is_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often its guest says that it ended: other events keep their room in the log."""
    monkeypatch.setattr(module, "MAX_RESTARTS", 2)
    guest, agents, _channel = world
    guest.answers["jail"] = "jail: no"

    def notices() -> int:
        return sum(isinstance(each, Notice) for each in guest.events)

    await guest.say(1, "dead")
    await until(notices)
    for _ in range(200):
        await guest.say(1, "starting")
        await guest.say(1, "dead")
    await until(lambda: agents._lives[1].restarting is None)
    assert notices() == 1
    # One that was up for long begins to count anew.
    monkeypatch.setattr(module, "WELL", 0.0)
    while not guest.calls.empty():
        guest.calls.get_nowait()
    await guest.say(1, "idle")
    await guest.say(1, "dead")
    assert await guest.called() == "jail"
    await until(lambda: notices() == 2)
