"""Tasks are done one at a time for each agent, end when they should, and are answered later."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from corral.errors import TaskError
from corral.tasks import history as histories
from corral.tasks.history import Entry, OnDisk, Remembered
from corral.tasks.model import Heartbeat, Outgoing, Result, Transcript
from corral.tasks.parse import task
from corral.tasks.queue import Tasks

from .conftest import Bench, Fields, run, sh


async def do(tasks: Tasks, fields: Fields, **options: object) -> Result:
    number = await tasks.submit(task(fields), **options)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        return await tasks.result(number)


async def begun(tasks: Tasks, number: str) -> None:
    """Until a task has written something."""
    async with asyncio.timeout(20), contextlib.aclosing(tasks.follow(number)) as messages:
        async for message in messages:
            if isinstance(message, Transcript):
                return


async def test_a_result_tells_how_it_ended_what_it_wrote_and_what_changed(bench: Bench) -> None:
    for name in ("old", "gone", "same"):
        (bench.folder / name).write_text("x")
    script = "echo out; echo err >&2; echo new > new; echo more >> old; rm gone; cat; exit 3"
    async with bench.tasks() as tasks:
        result = await do(tasks, sh(script, stdin="in\n"))
    assert (result.status, result.exit_status) == ("failed", 3)
    assert (result.stdout, result.stderr) == ("out\nin\n", "err\n")
    assert (result.stdout_bytes, result.stdout_truncated) == (7, False)
    assert result.changes is not None
    assert result.changes.added == ("new",)
    assert result.changes.modified == ("old",)
    assert result.changes.deleted == ("gone",)
    assert result.usage is not None and 0 < result.usage.seconds < 20
    assert result.usage.cpu_seconds == 1.5
    assert (result.id, result.agent, result.action) == ("1", 1, "execute_code")


async def test_each_kind_of_task_is_run(bench: Bench) -> None:
    async with bench.tasks() as tasks:
        python = {"action": "execute_code", "language": "python", "code": "print(6 * 7)"}
        assert (await do(tasks, python)).stdout == "42\n"
        bash = {"action": "execute_code", "language": "bash", "code": "-x 2>&1 || echo $((2**3))"}
        assert (await do(tasks, bash)).stdout.endswith("8\n")
        in_env = run("sh", "-c", "pwd; echo $A", cwd="sub", env={"A": "b c"})
        (bench.folder / "sub").mkdir()
        assert (await do(tasks, in_env)).stdout == f"{bench.folder}/sub\nb c\n"
        named = {"action": "test", "args": ["a b", "-k"]}
        result = await do(tasks, named)
        assert (result.status, result.stdout) == ("done", "tested a b -k ci\n")
        assert result.action == "test"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (run("/no/such/program"), "not found"),
        ({"action": "lint"}, "there is no action “lint”"),
        ({"action": "execute_code", "language": "cobol", "code": "x"}, "code in “cobol”"),
    ],
)
async def test_what_cannot_be_started_is_an_error_in_the_result(
    bench: Bench, fields: Fields, said: str
) -> None:
    async with bench.tasks() as tasks:
        result = await do(tasks, fields)
    assert (result.status, result.exit_status) == ("error", None)
    assert said in str(result.error) and result.hint


async def test_at_the_end_of_its_time_it_is_ended_and_what_it_wrote_is_there(bench: Bench) -> None:
    async with bench.tasks() as tasks:
        began = time.monotonic()
        result = await do(tasks, sh("echo begun; sleep 60", timeout_ms=300))
        assert time.monotonic() - began < 10
        assert (result.status, result.exit_status) == ("timeout", 143)
        assert result.stdout == "begun\n"
        assert result.error == "it ran longer than 0.3 seconds and was ended."
        stubborn = await do(tasks, sh("trap '' TERM; sleep 60 & wait; wait", timeout_ms=300))
        assert (stubborn.status, stubborn.exit_status) == ("timeout", 137)
        assert (await do(tasks, {"action": "slow"})).status == "timeout"
        over = await do(tasks, {"action": "slow", "timeout_ms": 100})
        assert "0.1 seconds" in str(over.error)


async def test_an_agent_does_one_at_a_time_in_order_and_agents_work_side_by_side(
    bench: Bench,
) -> None:
    script = "read others < count 2>/dev/null; echo x >> $0; sleep 0.2; wc -l < $0"
    async with bench.tasks(agents=2) as tasks:
        numbers = [
            await tasks.submit(task(run("sh", "-c", script, f"log-{agent}")), agent=agent)
            for agent in (1, 2, 1, 2)
        ]
        began = time.monotonic()
        results = await asyncio.gather(*(tasks.result(number) for number in numbers))
    assert [result.stdout.strip() for result in results] == ["1", "1", "2", "2"]
    first, second = results[0], results[1]
    assert first.began is not None and second.began is not None
    assert second.began < first.ended  # while the first agent was at work
    assert results[2].began is not None and results[2].began >= first.ended - 0.01
    assert time.monotonic() - began < 5


async def test_agents_of_one_workspace_that_take_turns_work_one_after_another(
    bench: Bench,
) -> None:
    script = "test ! -e busy || exit 9; touch busy; sleep 0.1; rm busy"
    async with bench.tasks(agents=3, lane="workspace") as tasks:
        numbers = [await tasks.submit(task(sh(script)), agent=n) for n in (1, 2, 3)]
        results = await asyncio.gather(*(tasks.result(number) for number in numbers))
    assert [result.status for result in results] == ["done"] * 3


async def test_what_is_cancelled_ends_or_does_not_begin(bench: Bench) -> None:
    async with bench.tasks() as tasks:
        first = await tasks.submit(task(sh("echo on; sleep 60")))
        second = await tasks.submit(task(sh("touch begun")))
        await begun(tasks, first)
        await tasks.cancel(second)
        await tasks.cancel(first)
        one, other = await tasks.result(first), await tasks.result(second)
        assert (one.status, one.stdout, one.exit_status) == ("cancelled", "on\n", 143)
        assert (other.status, other.began) == ("cancelled", None)
        assert not (bench.folder / "begun").exists()
        await tasks.cancel(first)  # which has ended: it stays as it is
        assert (await tasks.result(first)).status == "cancelled"
        assert (await do(tasks, sh("true"))).status == "done"


async def test_who_follows_is_told_what_happens_and_last_the_result(bench: Bench) -> None:
    async with bench.tasks() as tasks:
        await tasks.submit(task(sh("sleep 0.1")))
        number = await tasks.submit(task(sh("echo one; sleep 0.05; printf '\\033[2J\\303' >&2")))
        found: list[Outgoing] = []
        async with contextlib.aclosing(tasks.follow(number)) as messages:
            async for message in messages:
                found.append(message)
        again = [message async for message in tasks.follow(number)]
    waiting = found[0]
    assert isinstance(waiting, Heartbeat)
    assert (waiting.state, waiting.ahead) == ("queued", 1)
    written = [m for m in found if isinstance(m, Transcript)]
    assert "".join(m.text for m in written if m.stream == "stdout") == "one\n"
    assert "".join(m.text for m in written if m.stream == "stderr") == "\\x1b[2J\ufffd"
    assert isinstance(found[-1], Result) and again == [found[-1]]


async def test_a_flood_of_output_is_kept_in_part_and_counted_whole(bench: Bench) -> None:
    script = "echo first; head -c 3000000 /dev/zero | tr '\\0' '\\033'; echo; echo last"
    async with bench.tasks() as tasks:
        number = await tasks.submit(task(sh(script)))
        found = [message async for message in tasks.follow(number)]
    result = found[-1]
    assert isinstance(result, Result)
    assert (result.stdout_truncated, result.stdout_bytes) == (True, 3_000_012)
    assert result.stdout.startswith("first\n\\x1b") and result.stdout.endswith("\nlast\n")
    assert "\x1b" not in result.stdout and len(result.stdout) < 300_000
    followed = sum(len(m.text) for m in found if isinstance(m, Transcript))
    assert followed < 300_000


async def test_an_id_of_ones_own_is_taken_once(bench: Bench) -> None:
    async with bench.tasks() as tasks:
        assert (await do(tasks, sh("true"), number="build-7")).id == "build-7"
        with pytest.raises(TaskError, match="there is a task build-7 already"):
            await tasks.submit(task(sh("true")), number="build-7")
        with pytest.raises(TaskError, match="cannot be a task's id"):
            await tasks.submit(task(sh("true")), number="../x")
        with pytest.raises(TaskError, match="there is no agent 2"):
            await tasks.submit(task(sh("true")), agent=2)
        with pytest.raises(TaskError, match="there is no task nine"):
            await tasks.result("nine")
        with pytest.raises(TaskError, match="there is no task"):
            await tasks.cancel("\x1b[2J")


@pytest.mark.parametrize("kept", ["remembered", "on disk"])
async def test_a_number_that_is_given_is_of_no_task_that_is_known(
    bench: Bench, tmp_path: Path, kept: str
) -> None:
    history = OnDisk(tmp_path / "tasks") if kept == "on disk" else Remembered()
    async with bench.tasks(history=history) as tasks:
        for own in ("1", "2", "4"):
            await do(tasks, sh(f"echo own {own}"), number=own)
        given = [(await do(tasks, sh("echo given"))).id for _ in range(2)]
        assert given == ["3", "5"]
        for own in ("1", "2", "4"):
            assert (await tasks.result(own)).stdout == f"own {own}\n"
    async with bench.tasks(history=history) as tasks:
        assert (await do(tasks, sh("true"))).id == "6"


async def test_an_id_as_long_as_it_may_be_leaves_numbers_to_be_given(
    bench: Bench, tmp_path: Path
) -> None:
    async with bench.tasks(history=OnDisk(tmp_path / "tasks")) as tasks:
        await do(tasks, sh("true"), number="9" * 64)
        await do(tasks, sh("true"), number="007")
    async with bench.tasks(history=OnDisk(tmp_path / "tasks")) as tasks:
        number = await tasks.submit(task(sh("echo given")))
        assert (await tasks.result(number)).stdout == "given\n"


async def test_no_more_are_taken_than_can_be_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.tasks.queue.MAX_QUEUED", 2)
    async with bench.tasks() as tasks:
        number = await tasks.submit(task(sh("echo begun; exec sleep 30")))
        await tasks.submit(task(sh("true")))
        await begun(tasks, number)
        with pytest.raises(TaskError, match="2 tasks wait or run already"):
            await tasks.submit(task(sh("true")))


async def test_what_has_not_ended_with_the_sandbox_is_lost(bench: Bench, tmp_path: Path) -> None:
    history = OnDisk(tmp_path / "tasks")
    async with bench.tasks(history=history) as tasks:
        scripts = ("echo begun; exec sleep 60", "true")
        numbers = [await tasks.submit(task(sh(script))) for script in scripts]
        waiting = [asyncio.create_task(tasks.result(number)) for number in numbers]
        await begun(tasks, numbers[0])
        tasks.stop()
        with pytest.raises(TaskError, match="takes no more"):
            await tasks.submit(task(sh("true")))
    assert [(await each).status for each in waiting] == ["lost", "lost"]
    async with bench.tasks(history=OnDisk(tmp_path / "tasks")) as tasks:
        assert [each.status for each in await tasks.listed()] == ["lost", "lost"]
        assert (await tasks.result(numbers[0])).status == "lost"


async def test_what_a_keeper_that_was_killed_left_is_lost_for_the_next(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    async with bench.tasks(history=OnDisk(folder)) as tasks:
        done = await do(tasks, sh("echo kept"))
        number = await tasks.submit(task(sh("echo begun; exec sleep 60")))
        await begun(tasks, number)
        as_killed = (folder / f"{number}.json").read_bytes()
    (folder / f"{number}.json").write_bytes(as_killed)
    (folder / "damaged.json").write_text("{")
    async with bench.tasks(history=OnDisk(folder)) as tasks:
        assert await tasks.result(str(done.id)) == done
        left = await tasks.result(number)
        assert (left.status, left.error) == ("lost", "the sandbox ended before it did.")
        assert int(await tasks.submit(task(sh("true")))) == int(number) + 1


async def test_the_last_results_are_kept(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "KEPT", 2)
    for history in (OnDisk(tmp_path / "tasks"), None):
        async with bench.tasks(history=history) as tasks:
            for _ in range(4):
                await do(tasks, sh("true"))
            assert [each.id for each in await tasks.listed()] == ["3", "4"]
            with pytest.raises(TaskError):
                await tasks.result("1")
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["3.json", "4.json"]
    assert (tmp_path / "tasks" / "3.json").stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_is_full_loses_no_result_that_somebody_waits_for(
    bench: Bench, tmp_path: Path
) -> None:
    history = OnDisk(tmp_path / "tasks")
    async with bench.tasks(history=history) as tasks:
        number = await tasks.submit(task(sh("sleep 0.2; echo there")))
        (tmp_path / "tasks").rename(tmp_path / "gone")
        (tmp_path / "tasks").write_text("no folder")
        result = await tasks.result(number)
        assert (result.status, result.stdout) == ("done", "there\n")
        assert "cannot be written down" in str(result.error)
        with pytest.raises(TaskError, match="cannot be written down"):
            await tasks.submit(task(sh("true")))


async def test_a_fault_of_ours_in_one_task_ends_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    with monkeypatch.context() as patched:
        patched.setattr("corral.tasks.commands.command", lambda *_: 1 / 0)
        async with bench.tasks() as tasks:
            result = await do(tasks, sh("true"))
            patched.undo()
            assert (await do(tasks, sh("true"))).status == "done"
    asyncio.get_running_loop().set_exception_handler(None)
    assert result.status == "error"
    assert result.error == "internal error: ZeroDivisionError: division by zero"
    assert len(faults) == 1


async def test_tasks_are_done_in_the_order_they_were_given_whatever_the_disk_does(
    bench: Bench,
) -> None:
    class Moody(Remembered):
        """The sooner a task comes, the longer its writing down takes."""

        def put(self, entry: Entry) -> None:
            if entry.result is None:
                time.sleep(0.04 * (5 - int(entry.summary.id)))
            super().put(entry)

    async with bench.tasks(history=Moody()) as tasks:
        asked = [task(sh(f"echo {number} >> order")) for number in range(1, 5)]
        numbers = await asyncio.gather(*(tasks.submit(each) for each in asked))
        for number in numbers:
            await tasks.result(number)
    assert numbers == ["1", "2", "3", "4"]
    assert (bench.folder / "order").read_text().split() == numbers


async def test_a_fault_of_ours_in_writing_down_loses_no_result_and_no_task_after_it(
    bench: Bench,
) -> None:
    class Faulty(Remembered):
        """Fails at the end of the first task."""

        def put(self, entry: Entry) -> None:
            if entry.result is not None and entry.summary.id == "1":
                raise KeyError(entry.summary.id)
            super().put(entry)

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    async with bench.tasks(history=Faulty()) as tasks:
        first = await tasks.submit(task(sh("sleep 0.1; echo there")))
        second = await tasks.submit(task(sh("echo after")))
        async with asyncio.timeout(10):
            one, other = await tasks.result(first), await tasks.result(second)
    asyncio.get_running_loop().set_exception_handler(None)
    assert (one.status, one.stdout) == ("done", "there\n")
    assert one.error == "internal error: KeyError: '1'"
    assert (other.status, other.stdout, other.error) == ("done", "after\n", None)
    assert len(faults) == 1


async def test_who_gives_up_while_his_cancelling_is_written_down_leaves_nobody_waiting(
    bench: Bench,
) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(Remembered):
        """Takes its time for what was cancelled."""

        def put(self, entry: Entry) -> None:
            if entry.result is not None and entry.result.status == "cancelled":
                loop.call_soon_threadsafe(ending.set)
                time.sleep(0.1)
            super().put(entry)

    async with bench.tasks(history=Slow()) as tasks:
        first = await tasks.submit(task(sh("sleep 0.3")))
        second = await tasks.submit(task(sh("true")))
        cancelling = asyncio.create_task(tasks.cancel(second))
        await ending.wait()
        cancelling.cancel()
        async with asyncio.timeout(10):
            assert (await tasks.result(second)).status == "cancelled"
            assert (await tasks.result(first)).status == "done"
