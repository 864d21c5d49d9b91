"""Tasks given to a keeper over its socket: by clients that stay, and by clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from corral.errors import SandboxGoneError, SandboxStateError, TaskError
from corral.journal import contents
from corral.keeper.client import connect
from corral.keeper.tasking import Hands, _Told
from corral.tasks.commands import Place
from corral.tasks.history import OnDisk, folder_of
from corral.tasks.model import Result
from corral.tasks.parse import task
from corral.tasks.queue import Tasks
from corral.tasks.run import Tools
from corral.tasks.spending import Meter

from .conftest import Kept, Program


def run(*argv: str, **more: Any) -> Any:
    return task({"action": "run", "argv": list(argv), **more})


@pytest.fixture
async def working(kept: Kept) -> AsyncIterator[Kept]:
    """One whose agents, 1 and 2, take tasks."""
    places = {
        number: Place(agent=number, workdir="/work", folder=None, lane=f"agent-{number}")
        for number in (1, 2)
    }
    hands = Hands(kept.keeper)
    tools = Tools(begin=hands.command, actions={}, meter=Meter(), ready=hands.ready)

    async def say(program: Program) -> int:
        await program.stdout.write(" ".join(program.argv[1:]).encode())
        return 0

    async def wait(program: Program) -> int:
        await program.stdout.write(b"begun")
        number, _group = await program.signals.get()
        return 128 + number

    kept.box.scripts |= {"say": say, "wait": wait}
    history = OnDisk(folder_of(kept.name))
    async with Tasks(places, tools, history, _Told(kept.keeper)) as tasks:
        kept.keeper.tasks = tasks
        yield kept
        kept.keeper.tasks = None


async def test_a_task_is_done_by_its_agent_and_answered(working: Kept) -> None:
    async with connect(working.name) as client:
        number = await client.tasks.submit(run("say", "a", "b", env={"A": "1"}), agent=2)
        result = await client.tasks.result(number)
        assert (result.status, result.stdout, result.agent) == ("done", "a b", 2)
        assert result.changes is None  # nothing of its workspace can change
        assert [each.what for each in await client.tasks.listed()] == ["say a b"]
    program = working.box.programs[0]
    assert program.options["agent"] == 2 and program.options["environment"] == {"A": "1"}


async def test_a_client_that_goes_away_leaves_its_task_and_another_has_the_result(
    working: Kept,
) -> None:
    async with connect(working.name) as client:
        number = await client.tasks.submit(run("wait"))
        async with contextlib.aclosing(client.tasks.follow(number)) as messages:
            await anext(messages)
    await asyncio.sleep(0)
    assert not working.box.programs or working.box.programs[0].signals.empty()
    async with connect(working.name) as client:
        waiting = asyncio.create_task(client.tasks.result(number))
        await client.tasks.cancel(number)
        result = await waiting
        assert (result.status, result.exit_status) == ("cancelled", 143)
        assert await client.tasks.result(number) == result


async def test_many_are_in_flight_on_one_connection(working: Kept) -> None:
    async with connect(working.name) as client:
        numbers = [
            await client.tasks.submit(run("say", str(n)), agent=1 + n % 2) for n in range(60)
        ]
        results = await asyncio.gather(*map(client.tasks.result, numbers))
    assert [result.stdout for result in results] == [str(n) for n in range(60)]


async def test_a_large_result_comes_whole(working: Kept) -> None:
    async def flood(program: Program) -> int:
        for _ in range(200):
            await program.stdout.write(b"\x1b" * 5000)
        return 0

    working.box.scripts["flood"] = flood
    async with connect(working.name) as client:
        result = await client.tasks.result(await client.tasks.submit(run("flood")))
    assert (result.stdout_bytes, result.stdout_truncated) == (1_000_000, True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"action": "run"}, "“argv” is missing"), ({"x": 1}, "no “action”"), ({}, "no “action”")],
)
async def test_what_is_no_task_is_refused(working: Kept, wrong: Any, said: str) -> None:
    async with connect(working.name) as client:
        with pytest.raises(TaskError, match=said):
            await client._call("task", {"task": wrong})
        with pytest.raises(TaskError, match="there is no task 99"):
            await client.tasks.result("99")
        with pytest.raises(TaskError, match="there is no task 99"):
            await client.tasks.cancel("99")


async def test_before_it_is_up_and_while_it_stops_nothing_is_taken(
    kept: Kept, working: Kept
) -> None:
    tasks, kept.keeper.tasks = kept.keeper.tasks, None
    async with connect(kept.name) as client:
        with pytest.raises(SandboxStateError, match="is running"):
            await client.tasks.submit(run("say"))
    kept.keeper.tasks = tasks


async def test_when_the_sandbox_stops_a_task_gets_term_and_what_waits_is_lost(
    working: Kept,
) -> None:
    async with connect(working.name) as client:
        first = await client.tasks.submit(run("wait"))
        second = await client.tasks.submit(run("say"))
        async with contextlib.aclosing(client.tasks.follow(first)) as messages:
            async for message in messages:
                if getattr(message, "text", "") == "begun":
                    break
        working.keeper.stop(5.0)
        stopped = asyncio.create_task(working.stopped())
        with contextlib.suppress(SandboxGoneError):
            result = await client.tasks.result(first)
            assert (result.status, result.exit_status) == ("failed", 143)
        await stopped
    assert working.keeper.tasks is not None
    await working.keeper.tasks.__aexit__(None, None, None)
    history = OnDisk(folder_of(working.name))
    assert {each.id: each.status for each in history.summaries()} == {
        first: "failed",
        second: "lost",
    }


async def test_while_the_sandbox_is_paused_nothing_begins_and_nothing_is_ended(
    working: Kept,
) -> None:
    async with connect(working.name) as client:
        first = await client.tasks.submit(run("wait", timeout_ms=100))
        async with contextlib.aclosing(client.tasks.follow(first)) as messages:
            async for message in messages:
                if getattr(message, "text", "") == "begun":
                    break
        await client.pause()
        second = await client.tasks.submit(run("say", "x"))
        await asyncio.sleep(0.3)
        assert working.box.programs[0].signals.empty() and len(working.box.programs) == 1
        await client.resume()
        assert (await client.tasks.result(first)).status == "timeout"
        assert (await client.tasks.result(second)).stdout == "x"


async def test_the_event_log_tells_of_tasks(working: Kept) -> None:
    async with connect(working.name) as client:
        number = await client.tasks.submit(run("say", "x"), number="build")
        await client.tasks.result(number)
    lines = b"".join(contents(working.record.folder / "events.jsonl")).splitlines()
    events = [json.loads(line) for line in lines]
    found = [each for each in events if each["event"].startswith("task-")]
    assert [(each["event"], each["task"], each["agent"]) for each in found] == [
        ("task-began", "build", 1),
        ("task-ended", "build", 1),
    ]
    assert found[1]["status"] == "done"
    assert [each["status"] for each in events if each["event"] == "command-ended"] == [0]


def test_a_result_has_its_type_in_json() -> None:
    import msgspec

    result = Result(id="1", agent=1, action="run", status="done")
    assert msgspec.to_builtins(result)["type"] == "result"
