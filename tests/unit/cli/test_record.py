"""What `corral run` leaves of its command: as of one in a kept sandbox, and at no cost to it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from corral.cli import doings, keeping
from corral.cli.record import Record
from corral.cli.terminal import Source
from corral.errors import SandboxGoneError, UnknownSandboxError
from corral.events import AgentBecame
from corral.paths import log_dir
from corral.terminals import recordings, tap, transcripts
from corral.terminals.cast import Event

SIZE = (24, 80)


class Pieces:
    """What a command writes."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self, size: int = 65536) -> bytes:
        await asyncio.sleep(0)
        return self._pieces.pop(0) if self._pieces else b""

    def reset(self, reason: str) -> None:
        raise AssertionError(reason)


class Nowhere:
    """What a command reads: nothing."""

    async def write(self, data: bytes) -> None:
        raise AssertionError(data)

    async def end(self) -> None:
        pass


class Done:
    """A command that has an exit status, or whose sandbox is gone."""

    def __init__(self, out: Source, status: int | None) -> None:
        self.stdin = Nowhere()
        self.stdout = out
        self.stderr: Source | None = None
        self.sizes: list[tuple[int, int]] = []
        self._status = status

    async def wait(self) -> int:
        if self._status is None:
            raise SandboxGoneError("the sandbox is gone.")
        return self._status

    async def signal(self, number: int, *, group: bool = False) -> None:
        pass

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))


class Box:
    """Where commands run."""

    def __init__(self, done: Done) -> None:
        self._done = done

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Done:
        return self._done


async def ran(
    record: Record, *pieces: bytes, status: int | None = 0, size: tuple[int, int] | None = SIZE
) -> bytes:
    """What a command wrote, that ran until its end; it is not closed."""
    done, seen = Done(Pieces(*pieces), status), b""
    with record.of(Box(done)) as box:
        running = await box.exec(["talk", "a b", "\x1b]0;t\x07"], terminal=size)
        await running.resize(12, 50)
        assert done.sizes == [(12, 50)]
        while data := await running.stdout.read(65536):
            seen += data
        assert await running.wait() == status
    return seen


def lines(name: str) -> list[dict[str, Any]]:
    path = transcripts.path_of(log_dir(name), 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


def recording(name: str) -> recordings.Recording:
    [found] = recordings.listed(log_dir(name) / recordings.RECORDINGS)
    return found


async def test_a_command_at_a_terminal_is_recorded_and_in_the_transcript() -> None:
    record = Record("at-a-terminal")
    record.became(AgentBecame(agent=1, state="idle"))
    said = b"\x1b]52;c;ZXZpbA==\x07hello\r\n"
    assert await ran(record, said, b"x" * 200000 + b"\r\n", status=6) == (
        said + b"x" * 200000 + b"\r\n"  # as it is: the user's own terminal
    )
    assert await record.close(["/p/.git/hooks", "/p/\x1b.git"]) is None

    state, started, *outputs, ended, files = lines("at-a-terminal")
    assert (state["kind"], state["state"]) == ("agent", "idle")
    assert (started["kind"], started["argv"]) == ("started", ["talk", "a b", "\\x1b]0;t\\x07"])
    assert (ended["kind"], ended["status"]) == ("ended", 6)
    assert {each["command"] for each in (started, *outputs, ended, files)} == {os.getpid()}
    text = "".join(each["text"] for each in outputs)
    assert text.startswith("hello\r\n") and text.count("x") == 200000 and "52;" not in text
    assert files["obeyed"] == ["/p/.git/hooks", "/p/\\x1b.git"]
    assert files["truncated"] is False

    found = recording("at-a-terminal")
    assert found.session == "run"
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    happened = [each for each in recordings.events(found) if isinstance(each, Event)]
    shown = "".join(each.data for each in happened)
    assert "hello" in shown and "52;" not in shown and shown.count("x") >= 200000
    assert [each.data for each in happened if each.code == "r"] == ["50x12"]
    assert happened[-1].data == "ended with status 6"


async def test_without_a_terminal_only_the_beginning_and_the_end_are_written_down() -> None:
    record = Record("no-terminal")
    assert await ran(record, b"words", size=None, status=3) == b"words"
    assert await record.close() is None
    started, ended = lines("no-terminal")
    assert (started["kind"], ended["kind"], ended["status"]) == ("started", "ended", 3)
    assert not (log_dir("no-terminal") / recordings.RECORDINGS).exists()


async def test_a_sandbox_that_is_gone_is_the_end_of_its_recording_too() -> None:
    record = Record("gone")
    with pytest.raises(SandboxGoneError):
        await ran(record, b"words", status=None)
    assert await record.close() is None
    assert lines("gone")[-1]["status"] is None
    last = list(recordings.events(recording("gone")))[-1]
    assert isinstance(last, Event) and (last.code, last.data) == ("m", "the sandbox ended")


async def test_what_did_not_start_is_not_written_down() -> None:
    record = Record("not-started")
    with record.of(Box(Done(Pieces(), 0))):
        pass
    assert await record.close() is None
    assert not transcripts.path_of(log_dir("not-started"), 1).exists()


async def test_a_full_disk_is_told_and_the_command_hears_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = Record("full")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("corral.journal.os.write", full)
        assert await ran(record, b"words" * 1000) == b"words" * 1000
        failure = await record.close()
    assert failure is not None and "No space left" in failure


async def test_a_folder_that_cannot_be_made_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("no folder")
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path))
    record = Record("nowhere")
    assert await ran(record, b"words") == b"words"
    failure = await record.close()
    assert failure is not None and "logs" in failure


async def test_a_fault_of_the_recorder_is_told_and_not_the_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_self: object, _data: bytes) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("corral.terminals.emulator.Emulator.feed", broken)
    record = Record("broken")
    assert await ran(record, b"words") == b"words"
    assert await record.close() == "ZeroDivisionError: oh"
    assert lines("broken")[-1]["kind"] == "ended"


async def test_of_a_flood_a_part_is_left_out_and_neither_its_end_nor_the_size() -> None:
    record = Record("flood")
    flood = [b"a" * 60000 + b"\r\n"] * 60
    assert len(await ran(record, *flood, b"the end\r\n")) > 3 << 20
    async with asyncio.timeout(10):
        assert await record.close() is None
    happened = [each for each in recordings.events(recording("flood")) if isinstance(each, Event)]
    shown = "".join(each.data for each in happened)
    assert "the end" in shown and shown.count("a") < 60 * 60000
    assert [each.data for each in happened if each.code == "r"] == ["50x12"]


async def test_the_end_does_not_wait_for_a_recorder_that_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stuck(_self: tap.Tap) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("corral.terminals.tap.Tap.serve", stuck)
    monkeypatch.setattr("corral.cli.record.PATIENCE", 0.01)
    record = Record("slow")
    assert await ran(record, b"words") == b"words"
    async with asyncio.timeout(5):
        assert await record.close() is None
    assert lines("slow")[-1]["kind"] == "ended"


def test_to_start_a_run_nothing_of_it_is_imported() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import corral.cli.session, sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    modules = found.stdout.split()
    assert "corral.cli.session" in modules
    assert [each for each in modules if each.startswith(("corral.terminals", "wcwidth"))] == []


def test_what_git_obeys_is_shown_in_the_transcript() -> None:
    shown = list(doings.lines({"kind": "files", "obeyed": ["/p/.git/\x1b[2J", "/p/b"]}))
    assert [click.unstyle(line).strip() for line in shown] == [
        "obeyed by git: /p/.git/\\x1b[2J",
        "obeyed by git: /p/b",
    ]


def test_it_is_removed_by_name() -> None:
    (log_dir("to-be-removed") / "agent-1.jsonl").touch()
    keeping.remove("to-be-removed", force=False)
    with pytest.raises(UnknownSandboxError):
        keeping.remove("to-be-removed", force=False)
