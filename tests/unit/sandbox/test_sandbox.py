"""Commands that nobody waits for any more before they have begun; halting a machine.

The guest and QEMU are in the test's hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from corral.channel import Channel, Reason, serial_pair
from corral.errors import ChannelError, CommandNotFoundError, ExecError, ProcessError
from corral.sandbox import Sandbox
from corral.sandbox import sandbox as module
from corral_guest import wire


class Guest:
    """Takes requests, and answers when the test says so."""

    def __init__(self) -> None:
        self.port, self._theirs = serial_pair()
        self._theirs.setblocking(False)
        self._wire = wire.Connection()
        self.asked: asyncio.Queue[wire.Request] = asyncio.Queue()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._theirs, 65536):
            for event in self._wire.receive(data):
                if isinstance(event, wire.Message):
                    call = wire.parse_message(event.body)
                    assert isinstance(call, wire.Request)
                    for stream in cast("dict[str, int]", call.params.get("streams", {})).values():
                        self._wire.open(stream)
                    self.asked.put_nowait(call)

    async def request(self) -> wire.Request:
        async with asyncio.timeout(5):
            return await self.asked.get()

    async def say(self, body: dict[str, object]) -> None:
        self._wire.send_message(body)
        await asyncio.get_running_loop().sock_sendall(self._theirs, self._wire.take_output())

    def close(self) -> None:
        self._theirs.close()


class Monitor:
    """QEMU's, which does what the test says."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.refuses = ""

    async def execute(self, command: str) -> None:
        if command == self.refuses:
            raise ProcessError(f"QEMU refused {command}.")
        self.done.append(command)


World = tuple[Guest, Sandbox]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    guest = Guest()
    served = asyncio.create_task(guest.serve())
    unused: Any = None
    plan = SimpleNamespace(name="box", agents=[], setup={"hostname": "box"})
    machine = SimpleNamespace(folder=None, why_gone=Reason(), monitor=Monitor())
    async with await Channel.start(guest.port) as channel:
        box = Sandbox(cast(Any, plan), cast(Any, machine), channel, unused, unused, unused)
        yield guest, box
    served.cancel()
    guest.close()


def start(box: Sandbox) -> asyncio.Task[Any]:
    return asyncio.create_task(box.exec(["/bin/server"], agent=0))


async def test_a_start_that_is_cancelled_is_ended_in_the_guest(world: World) -> None:
    guest, box = world
    starting = start(box)
    exec_ = await guest.request()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    end = await guest.request()
    assert (end.method, end.params) == ("end", {"exec": exec_.params["exec"]})
    # The guest begins it all the same, kills it, and says so: nothing of that disturbs anybody.
    await guest.say(wire.response(exec_.id, {}))
    await guest.say(wire.notification("exited", {"exec": exec_.params["exec"], "status": 137}))
    await guest.say(wire.response(end.id, {}))
    again = start(box)
    await guest.say(wire.response((await guest.request()).id, {}))
    await again


async def test_a_start_that_is_not_answered_in_time_is_ended_in_the_guest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is paused meanwhile hears both when it goes on, in this order."""
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.05)
    guest, box = world
    with pytest.raises(ChannelError, match="did not answer exec"):
        await start(box)
    exec_, end = await guest.request(), await guest.request()
    assert (end.method, end.params) == ("end", {"exec": exec_.params["exec"]})


async def test_a_start_that_failed_is_not_ended(world: World) -> None:
    guest, box = world
    starting = start(box)
    exec_ = await guest.request()
    await guest.say(wire.error(exec_.id, -32000, "no", {"errno": 2, "what": "program"}))
    with pytest.raises(CommandNotFoundError):
        await starting
    with pytest.raises(ExecError, match="too long"):
        await box.exec(["/bin/server", "x" * (2 << 20)], agent=0)
    await asyncio.sleep(0.01)
    assert guest.asked.empty()


async def test_the_end_of_the_channel_ends_what_waits_for_such_an_end(world: World) -> None:
    guest, box = world
    starting = start(box)
    await guest.request()
    starting.cancel()
    await guest.request()
    guest.close()
    await box.channel.wait_closed()
    async with asyncio.timeout(5):
        await asyncio.gather(
            *(each for each in asyncio.all_tasks() if each.get_name().startswith("abandoned"))
        )


# Halting it


@pytest.fixture
def monitor(world: World) -> Monitor:
    return cast(Monitor, world[1].machine.monitor)


async def heard(guest: Guest, *methods: str) -> None:
    """The guest is asked these, in this order, and says yes to each."""
    for method in methods:
        request = await guest.request()
        assert request.method == method
        await guest.say(wire.response(request.id, {}))


async def test_its_agents_stand_still_before_it_is_halted(world: World, monitor: Monitor) -> None:
    guest, box = world
    halting = asyncio.create_task(box.pause())
    request = await guest.request()
    assert (request.method, monitor.done) == ("freeze", [])
    await guest.say(wire.response(request.id, {}))
    await halting
    assert monitor.done == ["stop"]
    sending = asyncio.create_task(box.sync())  # heard when it goes on
    await asyncio.sleep(0.05)
    assert guest.asked.empty()
    resuming = asyncio.create_task(box.resume())
    await heard(guest, "sync", "thaw", "wake", "clock")
    await asyncio.gather(resuming, sending)
    assert monitor.done == ["stop", "cont"]


@pytest.mark.parametrize("answer", [None, "a process does not stand still"])
async def test_it_is_halted_whatever_its_guest_says(
    world: World, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    monkeypatch.setattr(module, "STILL_TIMEOUT", 0.05 if answer is None else 5)
    guest, box = world
    halting = asyncio.create_task(box.pause())
    request = await guest.request()
    if answer is not None:
        await guest.say(wire.error(request.id, -32000, answer))
    await halting
    assert monitor.done == ["stop"]
    resuming = asyncio.create_task(box.resume())
    if answer is None:  # late: it means nothing any more
        await guest.say(wire.response(request.id, {}))
    await heard(guest, "thaw", "wake", "clock")
    await resuming


async def test_where_it_is_not_halted_its_agents_go_on(world: World, monitor: Monitor) -> None:
    guest, box = world
    monitor.refuses = "stop"
    halting = asyncio.create_task(box.pause())
    await heard(guest, "freeze", "thaw", "wake", "clock")
    with pytest.raises(ProcessError, match="refused stop"):
        await halting


async def test_cancelled_its_agents_go_on(world: World, monitor: Monitor) -> None:
    guest, box = world
    halting = asyncio.create_task(box.pause())
    request = await guest.request()
    halting.cancel()
    await guest.say(wire.response(request.id, {}))
    await heard(guest, "thaw", "wake", "clock")
    with pytest.raises(asyncio.CancelledError):
        await halting
    assert monitor.done == ["cont"]
