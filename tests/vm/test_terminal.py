"""`corral run` at a terminal: the command has one of its own, and the user's is as before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.corral import launch, left_behind
from tests.support.terminals import CTRL_C, CTRL_D, CTRL_Z, Terminal, terminal

PROMPT = r"\r\n@@ "


def start_shell(person: Terminal) -> None:
    """Wait for bash's first prompt, and give it one that nothing else prints."""
    person.expect(r"[$#] ")
    person.type("PS1='\\n@''@ '; bind 'set enable-bracketed-paste off'\n")
    person.expect(PROMPT)


def test_an_interactive_shell_works_as_at_home(project: Path) -> None:
    """Size, resize, job control, interrupts, an interactive Python, status, the user's modes."""
    with terminal(project, ["run", "--", "bash", "--norc"]) as person:
        before = person.modes()
        start_shell(person)
        assert person.modes() != before, "every key is the command's"

        person.type("tty; stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo three\n")
        person.expect(r"/dev/pts/\d+\r\n40 132\r\nxterm-256color\r\nthree\r\n")
        person.expect(PROMPT)

        person.type("trap 'stty size' WINCH\n")
        person.expect(PROMPT)
        person.resize(50, 100)
        person.type("\n")
        person.expect(r"50 100\r\n")
        person.type("trap - WINCH; echo re''ady\n")
        person.expect(r"\r\nready\r\n")
        person.expect(PROMPT)

        # What the job says itself tells that it is in the foreground: keys are its own from there.
        job = "trap 'echo con''tinued' CONT; echo u''p; while :; do sleep 0.1; done"
        person.type(f'sh -c "{job}" job\n')
        person.expect("up\r\n")
        person.type(CTRL_Z)
        person.expect(r"Stopped .* job\r\n")
        person.expect(PROMPT)
        person.type("jobs; fg\n")
        person.expect(r"Stopped .* job\r\n")
        person.expect("continued\r\n")
        person.type(CTRL_C)
        person.expect(PROMPT)
        person.type("echo status $?; jobs; echo a''gain\n")
        person.expect(r"status 130\r\nagain\r\n")
        person.expect(PROMPT)

        person.type("python3 -q\n")
        person.expect(">>> ")
        person.type("while True: pass\n\n")
        person.expect(r"\.\.\. \r\n")
        person.type(CTRL_C)
        person.expect("KeyboardInterrupt\r\n>>> ")
        person.type(CTRL_D)
        person.expect(PROMPT)

        person.type("exit 3\n")
        assert person.wait() == 3
        assert person.modes() == before, "the user's terminal is as it was"
        assert b"corral" not in person.rest()
    assert left_behind() == []


def test_without_a_terminal_of_its_own_the_users_stays_as_it_is(project: Path) -> None:
    """-T: keys are the user's terminal's: lines, Ctrl-D for the end, Ctrl-C as a signal."""
    script = "tty; cat; trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 0.1; done"
    with terminal(project, ["run", "-T", "--", "sh", "-c", script]) as person:
        before = person.modes()
        person.expect("not a tty\r\n")
        assert person.modes() == before
        person.type("line\n")
        person.expect("line\r\nline\r\n")
        person.type(CTRL_D)
        person.expect("up\r\n")
        person.type(CTRL_C)
        person.expect("interrupted\r\n")
        assert person.wait() == 5


def test_a_terminal_may_be_asked_for_where_the_user_has_none(project: Path) -> None:
    """-t: 24 by 80; both outputs are one; the end of the input is typed as Ctrl-D."""
    script = "tty -s && stty size; echo err >&2; exec cat"
    with launch(project, ["run", "-t", "--", "sh", "-c", script]) as process:
        out, err = process.communicate(b"typed\n", timeout=60)
    assert process.returncode == 0
    assert b"24 80\r\nerr\r\n" in out
    assert out.count(b"typed\r\n") == 2, "shown when typed, and printed by cat"
    assert err == b""


def test_no_input_with_a_terminal_leaves_the_keys_to_the_user(project: Path) -> None:
    """-I: nothing is typed at the command's terminal, not even an end; Ctrl-C interrupts."""
    with terminal(project, ["run", "-I", "--", "sh", "-c", "tty; read line; echo read"]) as person:
        before = person.modes()
        person.expect("/dev/pts/")
        assert person.modes() == before
        person.type("not for the command\n")
        person.type(CTRL_C)
        assert person.wait() == 130
        assert b"\r\nread" not in person.rest()


def test_a_closed_window_ends_everything(project: Path) -> None:
    with terminal(project, ["run", "--", "bash", "--norc"]) as person:
        start_shell(person)
        person.type("sh -c 'echo u''p; exec sleep 1000'\n")
        person.expect("up\r\n")
        person.hang_up()
        assert person.wait() == 128 + signal.SIGHUP
    assert left_behind() == []


def test_a_signal_from_outside_gives_the_terminal_back(project: Path) -> None:
    with terminal(project, ["run", "--", "sh", "-c", "echo up; exec sleep 1000"]) as person:
        before = person.modes()
        person.expect("up\r\n")
        assert person.modes() != before
        os.kill(person.pid, signal.SIGTERM)
        assert person.wait() == 128 + signal.SIGTERM
        assert person.modes() == before


@pytest.mark.parametrize("key", [CTRL_C, "\x1c"], ids=["interrupt", "quit"])
def test_a_key_during_the_start_ends_it(project: Path, key: str) -> None:
    with terminal(project, ["run", "--cold", "--", "bash"]) as person:
        before = person.modes()
        person.expect("booting the guest")
        person.type(key)
        assert person.wait() == 128 + (signal.SIGINT if key == CTRL_C else signal.SIGQUIT)
        assert person.modes() == before
        assert b"Traceback" not in person.rest()
    assert left_behind() == []
