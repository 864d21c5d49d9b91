"""Sessions in a real machine: typed into, left, killed from outside, come back to, recorded."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.terminals.emulator import CLEAN
from tests.support import leftovers
from tests.support.corral import command, environment, kept, left_behind
from tests.support.terminals import terminal
from tests.support.tmux import pane_shows, press, sockets_in

DETACH = "\x1c"  # Ctrl-\


def corral(*arguments: str, cwd: Path | None = None, status: int = 0) -> str:
    finished = subprocess.run(
        command(*arguments),
        cwd=cwd or "/",
        env=environment({"CORRAL_CPUS": "1", "CORRAL_MEMORY": "768MiB"}),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == status, (arguments, finished.stdout, finished.stderr)
    return finished.stdout + (finished.stderr if status else "")


def screen(name: str, session: str = "main", *, until: str = "", history: int = 0) -> str:
    """The screen, once it shows `until`."""
    deadline = time.monotonic() + 30
    while True:
        shown = corral("attach", name, session, "--capture", "--history", str(history))
        if re.search(until, shown, re.MULTILINE):
            return shown
        assert time.monotonic() < deadline, shown


def sessions(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(corral("attach", name, "--list", "--json"))
    return found


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("work") / "terminals"
    folder.mkdir()
    with kept("terminals", "-d", folder=folder):
        yield "terminals"
    assert leftovers.wait_until_gone(15) == []
    assert left_behind() == []


def test_a_program_is_still_there_after_its_client_was_killed(app: str, tmp_path: Path) -> None:
    with terminal(tmp_path, ["attach", app], rows=30, columns=100) as person:
        person.expect(r"[$#] ")
        person.type("echo shell-$$ > /tmp/shell; cat /tmp/shell; stty size\r")
        pid = person.expect(r"shell-(\d+)\r\n", 20)[1].decode()
        person.expect(r"30 100\r\n")
        os.kill(person.pid, signal.SIGKILL)
        assert person.wait() == -signal.SIGKILL
    with terminal(tmp_path, ["attach", app], rows=24, columns=80) as person:
        person.expect(rf"shell-{pid}")  # as it was left
        person.type("stty size; echo again-$$\r")
        person.expect(r"24 80\r\n")
        person.expect(rf"again-{pid}\r\n")
        person.type(DETACH)
        assert person.wait() == 0
        assert b"detached; it runs on" in person.rest()
    [found] = sessions(app)
    assert (found["agent"], found["session"], found["clients"]) == (1, "main", 0)
    assert found["size"] == [24, 80]


def test_keys_are_pressed_and_the_screen_is_read_without_a_terminal(app: str) -> None:
    corral("attach", app, "script", "-d", "--", "sh", "-c", 'read a; echo "<$a>"; read b; exit 5')
    corral("attach", app, "script", "-d", "--", "true", status=125)
    corral("attach", app, "script", "--type", r"hello\x20you\r")
    assert screen(app, "script", until="<hello you>") == "hello you\n<hello you>\n"
    with terminal(Path("/"), ["attach", app, "script"]) as person:
        person.expect("<hello you>")
        person.type("\r")
        assert person.wait() == 5  # the program's
        assert b"ended with status 5" in person.rest()
    assert "no session script" in corral("attach", app, "script", "--capture", status=125)


def test_a_program_that_fills_the_screen_is_shown_to_who_comes_later(app: str) -> None:
    script = "printf '\\033[?1049h\\033[H\\033[7mtop\\033[0m\\033[24;1Hbottom'; read a"
    corral("attach", app, "full", "-d", "--", "sh", "-c", f"echo before; {script}")
    screen(app, "full", until="bottom")
    with terminal(Path("/"), ["attach", app, "full"], rows=24, columns=80) as person:
        person.expect(r"\x1b\[1;1H.{0,20}\x1b\[0;7mtop")
        person.expect(r"bottom")
        person.type(DETACH)
        assert person.wait() == 0
    corral("attach", app, "full", "--kill")


def test_a_session_is_ended_with_what_its_program_started(app: str) -> None:
    hidden = "trap '' HUP TERM; (setsid sleep 4242 &) ; echo here; sleep 4243"
    corral("attach", app, "stays", "-d", "--", "bash", "-c", hidden)
    screen(app, "stays", until="here")
    looks = ["exec", app, "--", "sh", "-c", "pgrep -fc 'sleep 424[23]' || true"]
    assert corral(*looks) == "2\n"
    corral("attach", app, "stays", "--kill")
    assert corral(*looks) == "0\n"
    assert "stays" not in [each["session"] for each in sessions(app)]


def test_a_replay_is_what_was_shown(app: str) -> None:
    corral("attach", app, "played", "-d", "--", "sh", "-c", "read a; seq 1 200; echo =$a=; exit 3")
    corral("attach", app, "played", "--type", r"words\r")
    deadline = time.monotonic() + 30
    while "played" in [each["session"] for each in sessions(app)]:
        assert time.monotonic() < deadline
    lines = ["words", *[str(number) for number in range(1, 201)], "=words="]
    assert corral("replay", app, "played", "--text").splitlines() == lines
    with terminal(Path("/"), ["replay", app, "played"], rows=24, columns=80) as person:
        person.expect("=words=")
        assert person.wait() == 0
        assert CLEAN.fullmatch(person.rest().decode())
    [kept] = corral("replay", app, "--list", "--json", "--agent", "1").splitlines()[-1:]
    path = Path(json.loads(kept)["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert '"ended with status 3"' in path.read_text()


def test_a_run_without_a_keeper_is_recorded_too(tmp_path: Path) -> None:
    """And works as well where nothing can be written down, which is told once."""
    script = r"printf '\033]52;c;ZXZpbA==\007'; read a; seq 1 200; echo =$a=; git init -q .; exit 3"
    run = ["run", "--name", "alone", "--", "sh", "-c", script]
    others = left_behind()  # a sandbox of this module's
    for blocked in (False, True):
        with terminal(tmp_path, run) as person:
            person.expect("\x1b]52;c;")  # as it is: this is no session
            person.resize(30, 90)
            person.type("words\n")
            person.expect("=words=")
            assert person.wait() == 3
            assert person.rest().count(b"is written down") == blocked
        if blocked:
            break
        lines = ["words", *[str(number) for number in range(1, 201)], "=words="]
        assert corral("replay", "alone", "run", "--text").splitlines() == lines
        records = [
            json.loads(line) for line in corral("transcript", "alone", "--json").splitlines()
        ]
        kinds = [each["kind"] for each in records if each["kind"] not in ("agent", "output")]
        assert kinds == ["started", "ended", "files"]
        told = {each["kind"]: each for each in records}
        assert (told["ended"]["status"], told["started"]["argv"]) == (3, ["sh", "-c", script])
        assert str(tmp_path / ".git") in told["files"]["obeyed"]
        shown = "".join(each["text"] for each in records if each["kind"] == "output")
        assert "=words=" in shown and CLEAN.fullmatch(shown)
        [kept] = corral("replay", "alone", "--list", "--json").splitlines()
        recording = Path(json.loads(kept)["path"])
        assert recording.stat().st_mode & 0o777 == 0o600
        assert '"r", "90x30"' in recording.read_text()
        corral("rm", "alone")
        assert corral("transcript", "alone", status=125)
        # Nothing can be written down where there are folders.
        (recording.parent.parent / "agent-1.jsonl").mkdir(parents=True)
        recording.parent.write_text("no folder")
    corral("rm", "alone")
    assert left_behind() == others


def test_what_a_hostile_program_says_reaches_a_real_terminal_as_drawing_only(app: str) -> None:
    subprocess.run(command("attach", app, "hostile", "--kill"), env=environment())  # a first try's
    evil = (
        r"\005\033]0;evil\007\033[21t\033[6n\033]52;c;ZXZpbA==\007\033P$qm\033\\\033[5i\302\2336n"
    )
    corral(
        "attach", app, "hostile", "-d", "--", "sh", "-c", f"read a; printf '{evil}over\\n'; read b"
    )
    with terminal(Path("/"), ["attach", app, "hostile"], rows=24, columns=80) as person:
        person.type("go\r")
        person.expect("over")
        person.type(DETACH)
        person.wait()
        seen = person.rest()
    [found] = [each for each in sessions(app) if each["session"] == "hostile"]
    assert found["title"] == "evil" and found["dropped"] == 4
    assert b"evil" not in seen
    # What it asked was answered by the keeper, into the program's own terminal.
    assert "0n" not in screen(app, "hostile") and "[2;1R" in screen(app, "hostile", until="over")
    corral("attach", app, "hostile", "--kill")


@pytest.fixture
def tmux_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets of tmux are, so that no other tmux is met; none is left."""
    # Short: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tm-", dir="/tmp") as name:
        monkeypatch.setenv("TMUX_TMPDIR", name)
        with sockets_in(Path(name)):
            yield Path(name)


def test_agents_are_shown_side_by_side_and_outlive_tmux(
    app: str, tmux_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmux_folder
    theirs = tmp_path / "home"
    theirs.mkdir()
    (theirs / ".tmux.conf").write_text("set -g status-left THEIRS\n")
    monkeypatch.setenv("HOME", str(theirs))
    corral("tmux", app, "--detach")
    corral("tmux", app, "--detach")  # it is there already
    tmux = ["tmux", "-L", f"corral-{app}"]
    listed = ["list-panes", "-s", "-F", "#{window_name} #{@corral} #{pane_dead}", "-t", f"={app}"]
    panes = subprocess.run([*tmux, *listed], capture_output=True, text=True, check=True).stdout
    assert panes.splitlines() == ["agents agent 1 0", "log events 0", "console console 0"]
    left = subprocess.run(
        [*tmux, "show-options", "-gv", "status-left"], capture_output=True, text=True, check=True
    )
    assert left.stdout == f" {app} \n"
    press(app, "agents", "echo in-$((40+2))", "Enter")
    pane_shows(app, "agents", "in-42")
    pane_shows(app, "log", "command 1")
    assert "in-42" in corral("tmux", app, "--capture", "1")
    with terminal(tmp_path, ["tmux", app], rows=40, columns=160) as person:
        person.expect("in-42")
        person.expect("C-b d leave")
        for key in ("\x02", "d"):
            time.sleep(0.1)  # tmux takes what comes within a millisecond for pasted
            person.type(key)
        assert person.wait() == 0
    sockets = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_socket()]
    assert sockets == [f"tmux-{os.getuid()}/corral-{app}"]
    corral("tmux", app, "--kill")
    assert subprocess.run([*tmux, "ls"], capture_output=True).returncode == 1
    assert "main" in [each["session"] for each in sessions(app)]
    screen(app, until="in-42")
    assert "there is no tmux session" in corral_says("tmux", app, "--kill")


def corral_says(*arguments: str) -> str:
    """What it says to a person."""
    finished = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0
    return finished.stderr


def test_tmux_ends_with_the_sandbox(
    tmux_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("work") / "short"
    folder.mkdir()
    corral("up", "-d", cwd=folder)
    corral("tmux", "short", "--detach")
    pane_shows("short", "log", "running")
    corral("rm", "-f", "short")
    deadline = time.monotonic() + 20
    while subprocess.run(["tmux", "-L", "corral-short", "ls"], capture_output=True).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_flood_nobody_reads_is_bounded_and_stops_nobody(app: str) -> None:
    corral("attach", app, "flood", "-d", "--", "yes", "x" * 60)
    began = time.monotonic()
    assert corral("exec", app, "--", "echo", "quick") == "quick\n"
    assert time.monotonic() - began < 10
    assert screen(app, "flood", until="x").count("x" * 60) >= 20
    corral("attach", app, "flood", "--kill")
