"""The SDK's behaviour, with commands that run on this host."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from corral.errors import (
    CommandFailedError,
    ExecError,
    ExecTimeoutError,
    SandboxError,
    SandboxGoneError,
)
from corral.sdk import AsyncSandbox
from corral.sdk.portal import Portal
from tests.unit.sdk.conftest import LocalAsyncSandbox, LocalSandbox


def test_a_command_runs_to_its_end(box: LocalSandbox) -> None:
    result = box.exec(["sh", "-c", "cat; echo err >&2; exit 3"], input="in \u00fc")
    assert (result.status, result.stdout, result.stderr) == (3, "in \u00fc", "err\n")
    assert result.stdout_bytes == "in \u00fc".encode()
    assert 0 < result.seconds < 20
    assert box.exec(["sh", "-c", "echo $A"], env={"A": "b"}).stdout == "b\n"


def test_input_that_nobody_reads_is_no_error(box: LocalSandbox) -> None:
    assert box.exec(["true"], input=b"x" * 3_000_000).status == 0


def test_a_failure_is_an_error_only_when_asked_for(box: LocalSandbox) -> None:
    assert box.exec(["false"]).status == 1
    with pytest.raises(CommandFailedError, match="sh ended with status 4") as caught:
        box.exec(["sh", "-c", "echo out; echo why >&2; exit 4"], check=True)
    error = caught.value
    assert (error.status, error.stdout, error.stderr, error.detail) == (
        4,
        b"out\n",
        b"why\n",
        "why",
    )
    with pytest.raises(CommandFailedError, match="SIGKILL"):
        box.exec(["sh", "-c", "kill -9 $$"], check=True)


def test_time_runs_out_for_the_whole_process_group(box: LocalSandbox, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError, match=r"longer than 0\.5 seconds") as caught:
        box.exec(["sh", "-c", "echo begun; (sleep 60; touch late) & wait"], timeout=0.5)
    assert caught.value.stdout == b"begun\n"
    with pytest.raises(ExecTimeoutError):
        box.exec(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout=0.5)
    assert time.monotonic() - began < 10


def test_output_is_bounded(box: LocalSandbox) -> None:
    with pytest.raises(ExecError, match="more than 1000 bytes") as caught:
        box.exec(["yes"], output_limit=1000)
    assert caught.value.hint


@pytest.mark.parametrize("argv", ["ls -l", b"ls", [], ()])
def test_a_command_is_a_list(box: LocalSandbox, argv: object) -> None:
    with pytest.raises(TypeError, match="must be a list"):
        box.exec(argv)  # type: ignore[arg-type]  # that is the point


def test_a_working_folder_is_absolute(box: LocalSandbox) -> None:
    with pytest.raises(ValueError, match="absolute"):
        box.exec(["true"], cwd="sub")


def test_lines_come_as_they_are_written(box: LocalSandbox) -> None:
    lines = box.stream(["sh", "-c", "echo one; echo two >&2; printf three; exit 5"])
    assert sorted(lines) == ["one", "three", "two"]
    assert lines.status == 5
    assert list(lines) == []
    slow = box.stream(["sh", "-c", "echo first; read never; sleep 100"])
    assert next(slow) == "first"
    slow.close()
    assert list(slow) == []


def test_lines_of_any_length_arrive_whole_or_in_parts(box: LocalSandbox) -> None:
    code = "import sys; sys.stdout.write('a' * 3_000_000 + '\\n\\n' + 'b\\nc\\n' * 50_000)"
    lines = list(box.stream([sys.executable, "-c", code]))
    assert "".join(lines) == "a" * 3_000_000 + "bc" * 50_000
    assert max(map(len, lines)) <= 1 << 20
    assert lines[-100_001:] == ["", *["b", "c"] * 50_000]


def test_lines_end_with_an_error_when_asked_for_or_late(box: LocalSandbox) -> None:
    lines = box.stream(["sh", "-c", "echo one; exit 2"], check=True)
    assert next(lines) == "one"
    with pytest.raises(CommandFailedError):
        next(lines)
    with pytest.raises(ExecTimeoutError):
        list(box.stream(["sleep", "100"], timeout=0.3))
    with box.stream(["yes"]) as endless:
        assert next(endless) == "y"


def test_lines_that_are_dropped_end_their_command(box: LocalSandbox, tmp_path: Path) -> None:
    lines = box.stream(["sh", "-c", "echo $$; while :; do echo more; done"])
    pid = int(next(lines))
    del lines
    gc.collect()
    gone(pid)


def gone(pid: int) -> None:
    limit = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            assert time.monotonic() < limit, "it runs on"
            time.sleep(0.02)


def test_a_process_can_be_talked_to(box: LocalSandbox) -> None:
    with box.spawn(["cat"]) as process:
        process.stdin.write("a\nb\n")
        assert process.stdout.read() == b"a\nb\n"
        assert process.status is None
        with pytest.raises(ExecTimeoutError, match="still runs"):
            process.wait(timeout=0.1)
        process.stdin.write(b"c\nd")
        process.stdin.close()
        assert list(process.stdout) == ["c", "d"]
        assert process.wait() == process.status == 0
    with box.spawn(["sleep", "100"]) as process:
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        process.signal(signal.SIGINT)
    other = box.spawn(["sh", "-c", "echo out; echo err >&2; exec sleep 100"])
    assert other.stderr is not None
    assert (other.stdout.read(), other.stderr.read(1)) == (b"out\n", b"e")
    other.end()
    assert other.status == 143
    assert other.stdout.read_all() == b""


def test_leaving_a_process_ends_it(box: LocalSandbox) -> None:
    with box.spawn(["sh", "-c", "echo $$; trap '' TERM; while :; do sleep 0.1; done"]) as process:
        pid = int(process.stdout.read())
    gone(pid)


def test_files_are_at_hand(box: LocalSandbox, tmp_path: Path) -> None:
    box.files.write("a", b"content")
    assert box.files.read("a") == b"content"
    assert [each.name for each in box.files.list()] == ["a"]
    assert b"".join(box.files.stream("a")) == b"content"
    with box.files.stream("/dev/zero") as zeros:
        assert len(next(zeros)) > 0
    (tmp_path / "d").mkdir()
    box.files.unpack("d", box.files.pack("a", name="b"))
    assert (tmp_path / "d" / "b").read_bytes() == b"content"
    dropped = box.files.stream("/dev/zero")
    next(dropped)
    del dropped


# Its life


def test_a_block_ends_its_sandbox_whatever_ends_the_block(tmp_path: Path) -> None:
    box = LocalSandbox(tmp_path)
    with box:
        assert box.log == ["up"]
    assert box.log == ["up", "synced", "down"]
    for error, log in (
        (ZeroDivisionError, ["up", "synced", "down"]),
        (ExecError("x"), ["up", "synced", "down"]),
        (SandboxGoneError("x"), ["up", "down"]),
        (KeyboardInterrupt, ["up", "down"]),
        (SystemExit, ["up", "down"]),
    ):
        box = LocalSandbox(tmp_path)
        with pytest.raises(error if isinstance(error, type) else type(error)), box:
            raise error
        assert box.log == log
        box.close()


def test_before_and_after_its_block_a_sandbox_does_nothing(tmp_path: Path) -> None:
    box = LocalSandbox(tmp_path)
    with pytest.raises(SandboxGoneError, match="not started"):
        box.exec(["true"])
    with box:
        files = box.files
        with pytest.raises(SandboxError, match="once"):
            box.start()
        assert box.exec(["true"]).status == 0
    with pytest.raises(SandboxGoneError, match="block has ended"):
        box.exec(["true"])
    with pytest.raises(SandboxError, match="closed"):
        files.read("x")
    with pytest.raises(SandboxError, match="once"):
        box.start()


def test_a_start_that_fails_says_why_and_leaves_no_thread(tmp_path: Path) -> None:
    threads = threading.active_count()
    box = LocalSandbox(tmp_path)

    def fail() -> None:
        raise ZeroDivisionError

    box._inner._opened = fail  # type: ignore[method-assign, assignment]  # any failure will do
    with pytest.raises(ZeroDivisionError):
        box.start()
    assert threading.active_count() == threads


def test_threads_share_a_sandbox(box: LocalSandbox) -> None:
    found: dict[int, str] = {}

    def one(number: int) -> None:
        found[number] = box.exec(["sh", "-c", f"sleep 0.2; echo {number}"]).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n" for number in range(8)}
    assert time.monotonic() - began < 1.5, "side by side"


async def test_a_sandbox_without_asyncio_works_beside_a_running_loop(tmp_path: Path) -> None:
    """As in a notebook."""
    with LocalSandbox(tmp_path) as box:
        assert box.exec(["echo", "hi"]).stdout == "hi\n"


def test_a_forked_child_has_no_sandbox_and_ends_none(box: LocalSandbox) -> None:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            try:
                box.exec(["true"])
            except SandboxError as error:
                status = 0 if "its children" in error.message else 2
            box.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert box.exec(["echo", "well"]).stdout == "well\n"


def test_what_is_called_back_cannot_wait_for_its_own_loop(box: LocalSandbox) -> None:
    found: list[BaseException] = []

    async def inside() -> None:
        try:
            box.exec(["true"])
        except SandboxError as error:
            found.append(error)

    box._portal.call(inside)
    assert "calls itself" in str(found[0])


PROGRAM = """
import atexit, signal, sys, os, threading, time, pathlib
boxes = []
atexit.register(lambda: print(boxes[0].log))  # first registered, last called
from tests.unit.sdk.conftest import LocalSandbox
box = LocalSandbox(pathlib.Path(sys.argv[1]))
what = sys.argv[2]
boxes.append(box._inner)
if what == "interrupt":
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with box:
            try:
                box.exec(["sh", "-c", "echo $$ > pid; exec sleep 100"])
            except KeyboardInterrupt:
                print("interrupted")
                raise
    except KeyboardInterrupt:
        print("out")
elif what == "forget":
    box.start()
    box.exec(["true"])
elif what == "drop":
    box.start()
    del box
    time.sleep(1)
"""


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("interrupt", "interrupted\nout\n['up', 'down']\n"),
        ("forget", "['up', 'synced', 'down']\n"),
        ("drop", "['up', 'synced', 'down']\n"),
    ],
)
def test_nothing_is_left_of_what_is_interrupted_or_forgotten(
    tmp_path: Path, what: str, output: str
) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, str(tmp_path), what],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == output, done.stderr
    assert time.monotonic() - began < 30
    if what == "interrupt":
        gone(int((tmp_path / "pid").read_text()))
    if what == "drop":
        assert "ResourceWarning: a sandbox was not closed" in done.stderr


# With asyncio


async def test_many_commands_run_at_once(tmp_path: Path) -> None:
    async with LocalAsyncSandbox(tmp_path) as box:
        results = await asyncio.gather(*(box.exec(["echo", str(n)]) for n in range(8)))
        assert [each.stdout for each in results] == [f"{n}\n" for n in range(8)]
        assert [line async for line in box.stream(["echo", "a"])] == ["a"]
        async with box.stream(["yes"]) as lines:
            assert await anext(lines) == "y"


async def test_who_stops_waiting_ends_the_command(tmp_path: Path) -> None:
    async with LocalAsyncSandbox(tmp_path) as box:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await box.exec(["sh", "-c", "echo $$ > pid; exec sleep 100"])
        gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_a_block_ends_its_sandbox(tmp_path: Path) -> None:
    box = LocalAsyncSandbox(tmp_path)
    begun = asyncio.Event()

    async def use() -> None:
        async with box:
            begun.set()
            await asyncio.sleep(100)

    task = asyncio.create_task(use())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert box.log == ["up", "down"]


async def test_cancelling_a_start_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = AsyncSandbox(workspace=tmp_path)
    entered = asyncio.Event()
    left: list[bool] = []

    async def slow(self: object, ready: object, leave: object) -> None:
        entered.set()
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.1)
            left.append(True)

    monkeypatch.setattr(AsyncSandbox, "_live", slow)
    task = asyncio.create_task(box.start())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [True]


def test_warnings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from corral.events import Notice, Phase
    from corral.sdk.sandbox import _to_log

    with warnings.catch_warnings():
        _to_log(Phase(name="boot", message="booting"))
        _to_log(Notice(level="warning", message="100% odd"))
    assert [record.getMessage() for record in caplog.records] == ["100% odd"]


def test_arguments_that_a_method_does_not_take_are_told_and_nothing_hangs(
    box: LocalSandbox,
) -> None:
    with pytest.raises(TypeError, match="bogus"):
        box.exec(["true"], bogus=1)  # type: ignore[call-arg]
    assert box.exec(["true"]).status == 0


def test_who_calls_while_another_thread_closes_is_told() -> None:
    portal = Portal()
    begun, closing = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            closing.set()
            await asyncio.sleep(0.3)

    async def late() -> None:
        await asyncio.sleep(60)

    portal.soon(slow)
    assert begun.wait(10)
    closer = threading.Thread(target=portal.close)
    closer.start()
    assert closing.wait(10)
    with pytest.raises(SandboxError, match="closed"):
        portal.call(late)
    closer.join(10)
    with pytest.raises(SandboxError, match="closed"):
        portal.call(late)
