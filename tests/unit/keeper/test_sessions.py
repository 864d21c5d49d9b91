"""Sessions: terminals that outlive who looks at them, whoever looks and however badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.channel import Stream
from corral.errors import (
    ChannelError,
    CommandNotFoundError,
    ConfigError,
    SandboxStateError,
    StreamResetError,
    UsageError,
)
from corral.events import AgentBecame
from corral.keeper import session_calls, sessions
from corral.keeper.client import Attachment, connect
from corral.paths import log_dir
from corral.tasks.commands import Place
from corral.terminals import SHELL, recordings, transcripts
from corral.terminals.cast import Event
from corral.terminals.emulator import CLEAN, Emulator

from .conftest import Kept, Program, ScriptedExecution

SIZE = (10, 40)
MAIN = (1, "main")


async def shell(program: Program) -> int:
    """Says what it reads, ends with what follows `exit`; a hang-up ends it, too."""
    await program.stdout.write(b"$ ")

    async def serve() -> int:
        while data := await program.stdin.read():
            if data.startswith(b"exit"):
                return int(data[4:])
            await program.stdout.write(b"<" + data + b">\r\n")
        return 0

    async def hang_up() -> int:
        number, _group = await program.signals.get()
        return 128 + number

    work = [asyncio.ensure_future(each) for each in (serve(), hang_up())]
    done, rest = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for each in rest:
        each.cancel()
    return done.pop().result()


async def deaf(program: Program) -> int:
    """Stays whatever comes, but the end."""
    while not program.ended:
        await program.signals.get()
    return 137


class Window:
    """A terminal at the user's end. seen: what it shows."""

    def __init__(self, attachment: Attachment, size: tuple[int, int]) -> None:
        self.attachment = attachment
        self.seen = Emulator(*size)
        self.bytes = b""

    @property
    def stream(self) -> Stream:
        return self.attachment.stream

    async def until(self, condition: Callable[[str], bool]) -> str:
        async with asyncio.timeout(10):
            while not condition(text := self.seen.screen.text()):
                data = await self.stream.read()
                assert data, f"it ended with {text!r}"
                self.bytes += data
                self.seen.feed(data)
        return text

    async def sees(self, text: str) -> str:
        return await self.until(lambda shown: text in shown)


async def window(
    box: object, size: tuple[int, int] = SIZE, *, watch: bool = False, session: object = MAIN
) -> Window:
    return Window(await box.attach_session(session, size, watch=watch), size)  # type: ignore[attr-defined]


@pytest.fixture
def opened(kept: Kept) -> Kept:
    kept.box.scripts |= {"shell": shell, "deaf": deaf}
    return kept


async def test_a_session_is_there_again_after_its_client_has_gone(opened: Kept) -> None:
    async with connect(opened.name) as box:
        assert await box.open_session(MAIN, ["shell"], size=SIZE, environment={"A": "b"})
        first = await window(box)
        await first.sees("$")
        await first.stream.write(b"one")
        await first.sees("<one>")
    program = opened.box.programs[0]
    assert program.signals.empty()
    assert program.options["environment"] == {
        "A": "b",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    async with connect(opened.name) as box:
        again = await window(box)
        assert await again.sees("<one>") == "$ <one>\n"
        await again.stream.write(b"two")
        await again.sees("<two>")
        await again.stream.end()  # as the detach key does
        assert [each.clients for each in await box.sessions()] in ([0], [1])
        assert "<two>" in await box.capture_session(MAIN)


async def test_main_is_the_program_of_the_agents_recipe(
    opened: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody names another. Other sessions are a shell, and so is main without a recipe."""
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "mine.toml").write_text(
        'summary = "Mine"\nprogram = "shell"\ninteractive = ["shell", "--please"]\n'
        'state = ["~/.mine"]\n[env]\nMINE = "~/.mine"\n'
    )
    opened.box.scripts["/bin/sh"] = shell
    places = {
        number: Place(
            agent=number,
            workdir="/w",
            folder=None,
            lane="own",
            recipe=recipe,
            home="/home/me",
        )
        for number, recipe in ((1, "mine"), (2, None), (3, "gone"))
    }
    opened.keeper.sessions.places = places
    async with connect(opened.name) as box:
        for session in (MAIN, (1, "other"), (2, "main")):
            assert await box.open_session(session, [], size=SIZE, environment={"A": "b"})
        with pytest.raises(ConfigError, match="no recipe for an agent “gone”"):
            await box.open_session((3, "main"), [], size=SIZE)
        assert await box.open_session((3, "main"), ["shell"], size=SIZE)
        (tmp_path / "agents" / "mine.toml").unlink()
        assert not await box.open_session(MAIN, [], size=SIZE), "who attaches needs no recipe"
    mine, other, second, named = opened.box.programs
    assert mine.argv == ["shell", "--please"]
    assert {"A": "b", "MINE": "/home/me/.mine"}.items() <= mine.options["environment"].items()
    assert other.argv == second.argv == list(SHELL)
    assert named.argv == ["shell"]


async def test_the_end_of_the_program_is_told_with_its_status(opened: Kept) -> None:
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        seen = await window(box)
        await box.type_in_session(MAIN, b"exit7")
        while await seen.stream.read():
            pass
        assert await asyncio.wait_for(seen.attachment.over, 5) == 7
        assert await box.sessions() == ()
        with pytest.raises(SandboxStateError, match="no session main"):
            await box.attach_session(MAIN, SIZE)


async def test_several_see_the_same_and_one_may_only_watch(opened: Kept) -> None:
    async with connect(opened.name) as box, connect(opened.name) as other:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        one, two = await window(box), await window(other, watch=True)
        await two.stream.write(b"not me")
        await one.stream.write(b"me")
        assert await one.sees("<me>") == await two.sees("<me>") == "$ <me>\n"


async def test_the_size_is_that_of_who_typed_last(opened: Kept) -> None:
    async with connect(opened.name) as box, connect(opened.name) as other:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        large, small = await window(box), await window(other, (5, 20))
        sizes = opened.box.programs[0].sizes
        await small.stream.write(b"s")
        await small.sees("<s>")
        await large.stream.write(b"l" * 30)
        await large.sees("l" * 30)
        await small.until(lambda shown: "l" * 18 in shown and "l" * 21 not in shown)
        assert sizes == [(5, 20), SIZE]
        await large.attachment.resize(7, 33)
        await large.stream.write(b"x")
        await small.stream.end()
        assert (await box.sessions())[0].size == (7, 33)
        watcher = await window(other, (50, 100), watch=True)
        await watcher.sees("l" * 30)
        assert (await box.sessions())[0].size == (7, 33)


async def test_a_size_that_the_guest_did_not_answer_in_time_keeps_no_key_from_the_program(
    opened: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is halted, or being saved."""
    tried: list[tuple[int, int]] = []

    async def halted(_execution: ScriptedExecution, rows: int, columns: int) -> None:
        tried.append((rows, columns))
        raise ChannelError("the guest did not answer resize within 20 seconds.")

    monkeypatch.setattr(ScriptedExecution, "resize", halted)
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        seen = await window(box, (12, 50))
        await seen.stream.write(b"later")
        await seen.sees("<later>")
    assert tried == [(12, 50)]


async def test_a_client_that_does_not_read_stops_nobody_and_sees_the_end_of_it(
    opened: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_BACKLOG", 4096)

    async def talker(program: Program) -> int:
        for number in range(20000):
            await program.stdout.write(b"line %-30d|\r\n" % number)
        await program.stdin.read()
        return 0

    opened.box.scripts["talker"] = talker
    async with connect(opened.name) as box, connect(opened.name) as other:
        await box.open_session(MAIN, ["talker"], size=SIZE)
        slow, quick = await window(box), await window(other)
        await quick.sees("line 19999 ")
        await slow.sees("line 19999 ")
        assert len(slow.bytes) < 20000 * 38 / 2  # much was never sent


async def test_questions_of_a_program_are_answered_without_anybody_there(opened: Kept) -> None:
    answers: list[bytes] = []
    answered = asyncio.Event()

    async def asks(program: Program) -> int:
        await program.stdout.write(b"\x1b[2;3H\x1b[6n\x1b]52;c;ZXZpbA==\x07\x1b[21t\x05")
        answers.append(await program.stdin.read())
        answered.set()
        await program.stdin.read()
        return 0

    opened.box.scripts["asks"] = asks
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["asks"], size=SIZE)
        await asyncio.wait_for(answered.wait(), 5)
        assert answers == [b"\x1b[2;3R"]
        seen = await window(box)
        await box.type_in_session(MAIN, b".")
        data = b""
        while piece := await seen.stream.read():
            data += piece
        assert CLEAN.fullmatch(data.decode())
        assert b"52" not in data and b"n" not in data


async def test_who_asks_without_end_and_reads_no_answer_costs_little(opened: Kept) -> None:
    async def asks(program: Program) -> int:
        with contextlib.suppress(StreamResetError):
            for _ in range(300):
                await program.stdout.write(b"\x1b[6n" * 500)
            await program.stdout.write(b"done")
            await program.signals.get()
        return 0

    opened.box.scripts["asks"] = asks
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["asks"], size=SIZE)
        seen = await window(box)
        await seen.sees("done")
        found = opened.keeper.sessions.find(*MAIN)
        assert found._inputs.qsize() <= sessions._INPUTS


async def test_a_session_is_ended_with_all_that_its_program_started(opened: Kept) -> None:
    async with connect(opened.name) as box:
        for name, program in ((MAIN, "shell"), ((2, "main"), "deaf")):
            await box.open_session(name, [program], size=SIZE)
            seen = await window(box, session=name)
            await box.end_session(name)
            while await seen.stream.read():
                pass
        assert await box.sessions() == ()
    assert opened.box.programs[1].options["agent"] == 2
    assert all(program.ended for program in opened.box.programs)


async def test_who_types_what_nobody_reads_is_told_and_may_go(
    opened: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_calls, "_TYPING_SECONDS", 0.2)
    async with connect(opened.name) as other:
        async with connect(opened.name) as box:
            await box.open_session(MAIN, ["deaf"], size=SIZE)
            seen = await window(box)
            typing = asyncio.ensure_future(seen.stream.write(b"x" * 2_000_000))
            with pytest.raises(SandboxStateError, match="does not read"):
                while True:
                    await other.type_in_session(MAIN, b"x" * 60000)
            typing.cancel()
        async with asyncio.timeout(5):
            while (await other.sessions())[0].clients:
                pass
        await other.end_session(MAIN)


async def test_programs_are_hung_up_when_the_sandbox_stops(opened: Kept) -> None:
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        await box.stop(5)
        await asyncio.wait_for(opened.stopped(), 3)  # not after all of that time


async def test_a_name_is_taken_once_and_names_are_names(opened: Kept) -> None:
    async with connect(opened.name) as box:
        assert await box.open_session(MAIN, ["shell"], size=SIZE)
        assert not await box.open_session(MAIN, ["shell"], size=SIZE)
        assert await box.open_session((2, "main"), ["shell"], size=SIZE)
        for name in ("", "../x", "A", "a/b", "x" * 64):
            with pytest.raises(UsageError):
                await box.open_session((1, name), ["shell"], size=SIZE)
        with pytest.raises(CommandNotFoundError):
            await box.open_session((1, "other"), ["nothing"], size=SIZE)
        assert [(each.agent, each.session) for each in await box.sessions()] == [MAIN, (2, "main")]


async def test_there_are_only_so_many(opened: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 2)
    async with connect(opened.name) as box:
        for name in ("a", "b"):
            await box.open_session((1, name), ["shell"], size=SIZE)
        with pytest.raises(SandboxStateError, match="2 sessions already"):
            await box.open_session((1, "c"), ["shell"], size=SIZE)


async def test_all_of_it_is_recorded_in_a_private_file(opened: Kept) -> None:
    folder = log_dir(opened.name) / recordings.RECORDINGS
    async with connect(opened.name) as box:
        await box.open_session(MAIN, ["shell"], size=SIZE)
        seen = await window(box)
        await seen.stream.write(b"hello")
        await seen.sees("<hello>")
        [found] = recordings.listed(folder)
        assert (found.agent, found.session) == MAIN
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert b"hello" in found.path.read_bytes()  # as it happens
        await seen.attachment.resize(12, 50)
        await box.type_in_session(MAIN, b"exit3")
        while await seen.stream.read():
            pass
    happened = list(recordings.events(found))
    codes = "".join(getattr(each, "code", "h") for each in happened)
    assert codes.startswith("ho") and codes.endswith("m") and "ro" in codes
    assert "ended with status 3" in found.path.read_text()


def transcript(name: str, agent: int = 1) -> list[dict[str, Any]]:
    path = transcripts.path_of(log_dir(name), agent)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_an_agents_transcript_says_what_it_did_in_order(opened: Kept) -> None:
    async with connect(opened.name) as box:
        await box.open_session((2, "main"), ["shell", "-x"], size=SIZE)
        seen = await window(box, session=(2, "main"))
        for word in (b"one", b"two"):
            await seen.stream.write(word)
            await seen.sees(word.decode())
        opened.keeper.report(AgentBecame(agent=2, state="stuck", reason="no answer"))
        await box.type_in_session((2, "main"), b"exit4")
        while await seen.stream.read():
            pass
    first, *middle, last = transcript(opened.name, 2)
    assert (first["kind"], first["argv"], first["session"]) == ("started", ["shell", "-x"], "main")
    assert (last["kind"], last["status"], last["session"]) == ("ended", 4, "main")
    text = "".join(each["text"] for each in middle if each["kind"] == "output")
    assert text == "$ <one>\r\n<two>\r\n"
    [state] = [each for each in middle if each["kind"] == "agent"]
    assert (state["state"], state["reason"]) == ("stuck", "no answer")
    assert middle.index(state) == len(middle) - 1  # after what was shown before
    times = [each["time"] for each in (first, *middle, last)]
    assert times == sorted(times)
    assert stat.S_IMODE(transcripts.path_of(log_dir(opened.name), 2).stat().st_mode) == 0o600


async def test_a_terminal_that_is_no_session_is_written_down_and_not_held_up(opened: Kept) -> None:
    async def talk(program: Program) -> int:
        await program.stdout.write(b"\x1b]52;c;ZXZpbA==\x07hello\r\n" + b"x" * 300000)
        return 6

    opened.box.scripts["talk"] = talk
    async with connect(opened.name) as box:
        execution = await box.exec(["talk"], terminal=SIZE)
        await execution.resize(12, 50)
        data = b""
        while piece := await execution.stdout.read():
            data += piece
        assert data.startswith(b"\x1b]52;")  # as it is: this is no session
        assert await execution.wait() == 6
        plain = await box.exec(["talk"])
        while await plain.stdout.read():
            pass
        folder = log_dir(opened.name) / recordings.RECORDINGS
        async with asyncio.timeout(10):
            while b"ended with status 6" not in recordings.listed(folder)[0].path.read_bytes():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    [found] = recordings.listed(folder)  # of what had a terminal
    assert found.session == "exec-1"
    shown = "".join(each.data for each in recordings.events(found) if isinstance(each, Event))
    assert "hello" in shown and "52;" not in shown
    said = "".join(each["text"] for each in transcript(opened.name) if each["kind"] == "output")
    assert "hello" in said and said.count("x") >= 300000
    kinds = [each["kind"] for each in transcript(opened.name)]
    assert kinds.count("started") == kinds.count("ended") == 2
