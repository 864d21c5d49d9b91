"""The systemd unit of a kept sandbox: its text, its escaping, and what systemd says of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import PlanError
from corral.keeper import notify, unit
from corral.spec import Limits, Share, Spec
from tests.support import examples
from tests.support.golden import Golden

LIMITS = Limits(memory=6 << 30, cpu=150, pids=500, io_weight=50, io_read=50 << 20, io_write=1 << 20)
HOST = unit.Host(
    user="ada",
    uid=1000,
    program=("/opt/my tools/python3", "-P", "-m", "corral"),
    environ={"CORRAL_STATE_DIR": "/home/ada/50% state"},
    runtime="/run/user/1000",
)
ODD = '/home/ada/50% of "it"\\$HOME'


def spec() -> Spec:
    return examples.spec(
        workspace={"path": ODD},
        shares=(Share(source="/srv/data", target="/data", writable=False),),
        limits=LIMITS,
    )


@pytest.mark.parametrize("kind", ["user", "system"])
def test_the_unit(kind: unit.Kind, golden: Golden) -> None:
    golden(f"unit-{kind}", unit.render("demo", spec(), HOST, kind).splitlines())


def test_units_are_listed_by_one_pattern() -> None:
    assert unit.unit_name("my-app") == "corral@my-app.service"


def unquoted(word: str) -> str:
    """A quoted word as systemd reads it: C escapes, then specifiers (systemd.syntax(7))."""
    if word.startswith('"'):
        assert word.endswith('"')
        word = word[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    plain = word.replace("%%", "\0")
    assert "%" not in plain, "a specifier"
    return plain.replace("\0", "%")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_word_is_read_back_as_it_was(word: str) -> None:
    quoted = unit.quote(word)
    assert "\n" not in quoted
    assert unquoted(quoted) == word


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(PlanError, match="UTF-8"):
        unit.quote(os.fsdecode(b"/home/\xff"))


def test_a_dollar_in_a_command_is_no_variable() -> None:
    assert unit.command_line(("/bin/x", "$HOME", "a b")) == '/bin/x "$$HOME" "a b"'
    assert unit.command_line(("/a'b/x",)) == '/usr/bin/env "/a\'b/x"'


@pytest.mark.parametrize("kind", ["user", "system"])
def test_systemd_understands_the_unit(kind: unit.Kind, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed here")
    program = tmp_path / 'an odd "place"' / "50%" / "python3"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    host = unit.Host(
        user="root",
        uid=0,
        program=(str(program), "-P", "-m", "corral"),
        environ={"A": ODD},
        runtime="/run/user/0",
    )
    file = tmp_path / "corral@demo.service"
    file.write_text(unit.render("demo", spec(), host, kind))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    checked = subprocess.run(
        [analyze, "verify", f"--{kind}", "--man=no", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)},
    )
    about = [line for line in checked.stderr.splitlines() if "corral@" in line]
    assert about == [] and checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("abstract", [False, True])
def test_who_wants_to_know_is_told_that_the_sandbox_is_up(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"@corral-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if abstract else address)
        monkeypatch.setenv(notify.VARIABLE, address)
        notify.notify("READY=1")
        listener.settimeout(5)
        assert listener.recv(100) == b"READY=1"


def test_nobody_who_wants_to_know_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("", "/nonexistent/socket", "vsock:2:1"):
        monkeypatch.setenv(notify.VARIABLE, address)
        notify.notify("READY=1")
