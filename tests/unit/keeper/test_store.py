"""What is kept on disk of a sandbox: names, locks, and what is known of a keeper that died."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from corral.errors import (
    CommandNotFoundError,
    CorralError,
    GuestError,
    HostError,
    SandboxError,
    SandboxGoneError,
    SandboxStateError,
    UnknownSandboxError,
    UsageError,
)
from corral.keeper import model, store
from corral.keeper.client import connect
from corral.keeper.model import Problem, Request, Status, decode, encode, planning_environment
from corral.keeper.store import Record, boot_id
from corral.paths import log_dir, run_root
from corral.sandbox import sweep

SPAWN = multiprocessing.get_context("fork")


@contextlib.contextmanager
def living_keeper(record: Record) -> Iterator[int]:
    """A process that holds the keeper's lock; killed at the end if it still lives."""
    ready, go = SPAWN.Event(), SPAWN.Event()

    def hold() -> None:
        with record.keeping():
            status = Status(state="running", since=1.0, keeper=os.getpid(), boot=boot_id())
            record.write_status(status)
            ready.set()
            go.wait()

    process = SPAWN.Process(target=hold)
    process.start()
    try:
        assert ready.wait(10)
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


# Names


@pytest.mark.parametrize("name", ["a", "0", "my-app", "x" * 63])
def test_names_that_are_possible(name: str) -> None:
    assert Record(name).folder.name == name


@pytest.mark.parametrize("name", ["", ".", "..", "A", "a/b", "../x", "-a", "x" * 64, "a\n", "ä"])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a sandbox"):
        Record(name)


def test_a_sandbox_that_was_never_made_is_unknown() -> None:
    for action in (Record.find, lambda name: Record(name).request()):
        with pytest.raises(UnknownSandboxError, match="no sandbox nobody") as caught:
            action("nobody")
        assert caught.value.hint == "See those there are: corral ps -a"


def test_a_lock_alone_makes_no_sandbox_and_leaves_nothing() -> None:
    record = Record("never")
    with pytest.raises(RuntimeError), record.changing():
        assert record.folder.exists()
        raise RuntimeError
    assert not record.exists()
    assert not record.folder.exists()
    assert "never" not in store.names()


def test_what_is_kept_is_private_and_listed(record: Record) -> None:
    record.write_status(Status(state="stopped", since=1.0))
    assert record.name in store.names()
    assert stat.S_IMODE(store.root().stat().st_mode) == 0o700
    assert stat.S_IMODE(record.folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in record.folder.iterdir())


# Values


def test_a_request_comes_back_as_it_was_bytes_that_are_no_text_included(
    request_kept: Request,
) -> None:
    run = msgspec.structs.replace(request_kept.spec.run, env=(("RAW", "\udcff\udc80ä"),))
    spec = msgspec.structs.replace(request_kept.spec, run=run)
    wanted = msgspec.structs.replace(request_kept, spec=spec, environ={"PATH": "/\udcfe"})
    assert decode(encode(wanted), Request) == wanted


def test_only_what_planning_needs_is_kept_of_the_users_environment() -> None:
    environ = {"PATH": "/bin", "LANG": "C", "LC_TIME": "C", "SECRET_TOKEN": "x", "HOME": "/root"}
    assert planning_environment(environ) == {"PATH": "/bin", "LANG": "C", "LC_TIME": "C"}


@pytest.mark.parametrize(
    "error",
    [
        CommandNotFoundError("no.", hint="Do.", detail="d"),
        SandboxGoneError("gone."),
        GuestError("said", code=5, data={"errno": 2}),
    ],
)
def test_an_error_comes_back_as_it_was(error: CorralError) -> None:
    found = Problem.of(error).error()
    assert type(found) is type(error)
    assert (found.message, found.hint, found.detail) == (error.message, error.hint, error.detail)
    if isinstance(found, GuestError) and isinstance(error, GuestError):
        assert (found.code, found.data) == (error.code, error.data)


@pytest.mark.parametrize("kind", ["NoSuchError", "annotations", "__name__", "Exception", ""])
def test_an_error_of_no_known_kind_is_a_sandboxs(kind: str) -> None:
    assert type(Problem(kind=kind, message="m").error()) is SandboxError


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": "odd", "since": 1}', b"\xff"])
def test_a_record_that_is_damaged_is_one_clear_error(record: Record, content: bytes) -> None:
    (record.folder / "status.json").write_bytes(content)
    with pytest.raises(HostError, match="cannot be read"):
        record.status()
    (record.folder / "request.json").write_bytes(content)
    with pytest.raises(HostError, match="cannot be read"):
        record.request()


def test_a_full_disk_is_one_clear_error(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_atomically", full)
    with pytest.raises(HostError, match="No space left") as caught:
        record.write_status(Status(state="stopped", since=1.0))
    assert "Free some space" in (caught.value.hint or "")


# A keeper that lives, and one that died


def test_without_a_keeper_it_is_as_was_written(record: Record) -> None:
    assert record.status().state == "stopped"
    record.write_status(Status(state="failed", since=2.0, problem=Problem(kind="x", message="m")))
    assert record.status().state == "failed"
    assert not record.is_kept()


def test_a_keeper_that_lives_is_known_by_its_lock(record: Record) -> None:
    with living_keeper(record) as pid:
        assert record.is_kept()
        assert (record.status().state, record.status().keeper) == ("running", pid)
        with pytest.raises(SandboxStateError, match="has a keeper already"), record.keeping():
            pass


def test_a_keeper_that_was_killed_is_noticed_at_once(record: Record) -> None:
    with living_keeper(record) as pid:
        os.kill(pid, 9)
        record.wait_until_left()
        status = record.status()
    assert status.state == "failed"
    assert status.problem is not None
    assert f"(process {pid}) was killed while the sandbox was running" in status.problem.message
    assert status.problem.hint == f"Start it again: corral start {record.name}"


def test_a_host_that_went_down_is_told_from_a_keeper_that_was_killed(record: Record) -> None:
    record.write_status(Status(state="paused", since=1.0, keeper=1, boot="another"))
    problem = record.status().problem
    assert problem is not None
    assert "this machine went down while the sandbox" in problem.message


def test_what_a_dying_keeper_said_is_shown(record: Record) -> None:
    (record.folder / "keeper.log").write_text("first\n\x1b[31mlast\n")
    record.write_status(Status(state="running", since=1.0, keeper=1, boot=boot_id()))
    problem = record.status().problem
    assert problem is not None
    assert problem.detail == "first\n\\x1b[31mlast"


def test_settling_writes_down_what_happened_and_sweeps_the_run_folder(record: Record) -> None:
    folder = run_root() / f"{record.name}-123456"
    folder.mkdir(mode=0o700)
    (folder / "keeper.sock").touch()
    record.write_status(
        Status(state="running", since=1.0, keeper=1, boot=boot_id(), run_folder=str(folder))
    )
    with record.changing():
        record.settle()
    assert not folder.exists()
    assert record.written_status().state == "failed"
    assert sweep() == []


def test_settling_removes_no_folder_but_a_run_folder(record: Record, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    record.write_status(
        Status(state="running", since=1.0, boot=boot_id(), run_folder=str(precious))
    )
    with record.changing():
        record.settle()
    assert precious.exists()


def test_looking_never_keeps_a_keeper_from_its_lock(record: Record) -> None:
    """Many look whether it is free while one keeper after the other takes it."""
    stop = SPAWN.Event()

    def look() -> None:
        while not stop.is_set():
            record.is_kept()

    lookers = [SPAWN.Process(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            with record.keeping():
                assert record.is_kept()
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


def test_a_process_id_that_is_anothers_by_now_gets_no_signal(record: Record) -> None:
    record.write_status(Status(state="running", since=1.0, keeper=os.getpid(), boot=boot_id()))
    assert not record.end_keeper()  # nobody holds the lock: it would have ended this test


# Two commands at once


def test_the_second_command_waits_for_the_first_and_is_told(record: Record) -> None:
    begin, told, done = SPAWN.Event(), SPAWN.Event(), SPAWN.Event()

    def second() -> None:
        begin.wait()
        with record.changing(told.set):
            done.set()

    process = SPAWN.Process(target=second)  # now: it must not inherit the lock
    process.start()
    with record.changing():
        begin.set()
        assert told.wait(10)
        assert not done.wait(0.2)
    assert done.wait(10)
    process.join()


def test_what_was_said_and_spent_is_removed_with_it(record: Record) -> None:
    kept = log_dir(record.name) / "gateway"
    kept.mkdir()
    (kept / "transcript.jsonl").write_text("what an agent said")
    other = log_dir("other")
    with record.changing():
        record.remove()
    assert not kept.parent.exists() and other.exists()


def test_who_waited_for_a_removal_finds_it_removed(record: Record) -> None:
    begin, told, found = SPAWN.Event(), SPAWN.Event(), SPAWN.SimpleQueue()

    def second() -> None:
        begin.wait()
        with record.changing(told.set):
            found.put(record.exists())

    process = SPAWN.Process(target=second)
    process.start()
    with record.changing():
        begin.set()
        assert told.wait(10)
        record.remove()
    assert found.get() is False
    process.join()
    assert not record.folder.exists()


def test_many_commands_at_once_have_the_lock_one_after_the_other(tmp_path: Path) -> None:
    """Some make it, some remove it; never are two in."""
    record, inside = Record("crowd"), tmp_path / "inside"

    def one() -> None:
        for round_ in range(30):
            with record.changing():
                inside.mkdir()
                inside.rmdir()
                if round_ % 2:
                    record.remove()  # the last thing that is done: from here on others may be in

    crowd = [SPAWN.Process(target=one) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert [process.exitcode for process in crowd] == [0] * 4
    assert not record.folder.exists()


def test_removing_takes_everything_and_the_name_is_free(
    record: Record, request_kept: Request
) -> None:
    (record.folder / "disk.qcow2").touch()
    (record.folder / "checkpoints").mkdir()
    with record.changing():
        record.remove()
    assert not record.folder.exists()
    with record.changing():
        record.write_request(request_kept)
    assert record.exists()


async def test_one_that_does_not_run_says_so_to_who_wants_to_talk(record: Record) -> None:
    with pytest.raises(SandboxStateError, match="is stopped") as caught:
        async with connect(record.name):
            pass
    assert caught.value.hint == f"Start it: corral start {record.name}"
    record.write_status(Status(state="running", since=time.time(), keeper=1, boot=boot_id()))
    with pytest.raises(SandboxStateError, match="was killed while"):
        async with connect(record.name):
            pass


async def test_one_whose_keeper_does_not_listen_yet_says_so(record: Record) -> None:
    with record.keeping(), pytest.raises(SandboxStateError, match="does not answer yet"):
        async with asyncio.timeout(5), connect(record.name):
            pass


def test_every_state_is_known_to_be_alive_or_not() -> None:
    states = set(model.State.__args__)  # type: ignore[attr-defined]
    assert states - model.ALIVE == {"stopped", "failed"}
