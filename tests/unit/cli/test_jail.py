"""`corral jail` at a terminal, and with streams: as `corral run`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.corral import command, launch
from tests.support.terminals import CTRL_C, CTRL_D
from tests.support.terminals import terminal as at_terminal


def corral(folder: Path, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command("jail", *arguments), cwd=folder, capture_output=True, text=True, timeout=60, **more
    )


def test_a_shell_has_a_terminal_of_its_own_with_job_control(tmp_path: Path) -> None:
    with at_terminal(tmp_path, ["jail", "--", "bash", "--norc", "-i"]) as terminal:
        terminal.type("echo $((6*7)); stty size\r")
        terminal.expect("42\r\n40 132")
        # A child says it, which is in the foreground then: before, Ctrl-C is for the shell alone.
        terminal.type("sh -c 'echo now; exec sleep 1000'\r")
        terminal.expect("\r\n.*now\r\n")
        terminal.type(CTRL_C)
        terminal.type("echo aga''in\r")
        terminal.expect("again")
        terminal.resize(30, 100)
        terminal.type("trap 'stty size' WINCH; sleep 0.5; stty size\r")
        terminal.expect("30 100", timeout=15)
        terminal.type("exit 7\r")
        assert terminal.wait() == 7


def test_ctrl_c_is_the_programs_and_not_bubblewraps(tmp_path: Path) -> None:
    code = (
        "import time\nprint('up', flush=True)\n"
        "try:\n    time.sleep(100)\nexcept KeyboardInterrupt:\n    print('mine', flush=True)\n"
        "input()\n"
    )
    with at_terminal(tmp_path, ["jail", "--", "python3", "-c", code]) as terminal:
        terminal.expect("up")
        terminal.type(CTRL_C)
        terminal.expect("mine")
        terminal.type(CTRL_D)
        assert terminal.wait() == 1  # EOFError


def test_streams_and_statuses(tmp_path: Path) -> None:
    done = corral(tmp_path, "-T", "--", "sh", "-c", "cat; echo error >&2; exit 3", input="in")
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "error\n")
    assert corral(tmp_path, "-T", "--", "no-such-command").returncode == 127
    (tmp_path / "text").write_text("text")
    assert corral(tmp_path, "-T", "--", "./text").returncode == 126
    assert corral(tmp_path, "-T", "--", "sh", "-c", "kill -KILL $$").returncode == 137
    assert corral(tmp_path, "-T", "--timeout", "1s", "--", "sleep", "60").returncode == 124
    big = corral(tmp_path, "-T", "--", "head", "-c", "3000000", "/dev/zero")
    assert len(big.stdout) == 3_000_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_the_commands(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 9' {name}; echo up; while :; do sleep 0.1; done"
    process = launch(tmp_path, ("jail", "-T", "--timeout", "30s", "--", "sh", "-c", script))
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (9, b"caught\n"), err


def test_what_is_wrong_is_said_with_corrals_own_status(tmp_path: Path) -> None:
    for arguments, words in (
        (("--ro-bind", "/nonexistent"), "does not exist"),
        (("--fwd-env", "NO_SUCH_VARIABLE_HERE"), "is not set"),
        (("--set-env", "X"), "has no value"),
        (("--seccomp", "/nonexistent"), "cannot be read"),
        (("--hostname", "A B"), "is no host name"),
        (("--deny", "~/$X"), "both ~ and $"),
    ):
        done = corral(tmp_path, "-T", *arguments, "--", "true")
        assert done.returncode == 125 and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert corral(tmp_path).returncode == 125


def test_options_make_the_jail(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("x")
    options = ("--rw-bind", "data:/data", "--tmpfs", "/cache", "--hostname", "box")
    further = ("--set-env", "A=1", "--time-zone", "Asia/Tokyo", "--no-cwd", "-w", "/data")
    script = "pwd; hostname; echo $A; date +%Z; touch /data/y /cache/z; ls /"
    done = corral(tmp_path, "-T", *options, *further, "--", "sh", "-c", script)
    assert done.stdout.split()[:4] == ["/data", "box", "1", "JST"], done.stderr
    assert (tmp_path / "data" / "y").exists()
    bare = corral(tmp_path, "-T", "--bare", "--no-cwd", "--", "true")
    assert bare.returncode != 0
