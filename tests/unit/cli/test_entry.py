"""However the command line ends, a person reads what happened and a script gets a status."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from corral.cli import VERBS, entry, session
from corral.errors import (
    CommandNotFoundError,
    ConfigError,
    CorralError,
    ExecTimeoutError,
    NotExecutableError,
    UsageError,
)

from .conftest import Typed

Ending = Callable[..., int]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """ending(X): the exit status of `corral run` whose work raises, or returns, X."""

    def end(outcome: BaseException | int, *arguments: str) -> int:
        def work(*_arguments: object) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(session, "run", work)
        monkeypatch.setattr(sys, "argv", ["corral", "run", *(arguments or ("--", "true"))])
        with pytest.raises(SystemExit) as stop:
            entry.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return end


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (0, 0),
        (3, 3),
        (click.exceptions.Exit(7), 7),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (click.UsageError("what?"), 125),
        (click.ClickException("no."), 1),
        (CorralError("no."), 125),
        (ConfigError("no."), 125),
        (UsageError("no."), 2),
        (ExecTimeoutError("late."), 124),
        (NotExecutableError("no."), 126),
        (CommandNotFoundError("no."), 127),
        (RuntimeError("a fault"), 125),
    ],
)
def test_every_ending_has_its_status(
    ending: Ending, outcome: BaseException | int, status: int
) -> None:
    assert ending(outcome) == status


def test_an_error_is_shown_with_its_evidence_and_the_next_step(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(CorralError("it broke.", hint="Mend it.", detail="line 1\nline 2"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "corral: error: it broke.\n  | line 1\n  | line 2\n  Mend it.\n"


def test_a_fault_of_corrals_own_is_one_message_without_a_traceback(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(KeyError("x"))
    err = capsys.readouterr().err
    assert "internal error: KeyError: 'x'" in err
    assert "CORRAL_DEBUG=1" in err
    assert "Traceback" not in err


def test_with_debug_a_fault_keeps_its_traceback(ending: Ending) -> None:
    with pytest.raises(KeyError):
        ending(KeyError("x"), "--debug", "--", "true")


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_error_of_a_fault_names_shows_the_traceback_of_every_verb(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_arguments: object, **_more: object) -> None:
        raise KeyError("x")

    command = importlib.import_module(f"corral.cli.{VERBS[verb][0]}").command
    monkeypatch.setattr(command, "make_context", fault)
    monkeypatch.setattr(sys, "argv", ["corral", verb])
    monkeypatch.setenv("CORRAL_DEBUG", "")
    with pytest.raises(SystemExit):
        entry.main()
    assert "CORRAL_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("CORRAL_DEBUG", "1")
    with pytest.raises(KeyError):
        entry.main()


def test_the_commands_own_debug_option_is_not_corrals(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(KeyError("x"), "--", "make", "--debug") == 125
    assert ending(KeyError("x"), "make", "--debug") == 125
    assert "internal error" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Standard error at which a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variable", "coloured"), [(None, True), ("NO_COLOR", False)])
def test_errors_are_coloured_at_a_terminal_unless_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    entry.show(CorralError("it broke."))
    assert ("\x1b[" in screen.getvalue()) is coloured


def test_a_reader_who_leaves_is_no_error(typed: Typed, tmp_path: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "corral", "config", "schema"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert process.returncode == 141
    assert process.stderr == ""


def test_an_error_of_the_configuration_names_the_file(typed: Typed, project: Any) -> None:
    (project / "corral.toml").write_text("[machine]\ncpuz = 2\n")
    finished = typed("config", "show")
    assert finished.returncode == 125
    assert finished.stderr.startswith("corral: error: ")
    assert "corral.toml" in finished.stderr
    assert "cpus" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_output_that_cannot_be_written_is_no_fault_of_any_verb(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["corral", *filter(None, [verb]), "--help"])
    with Path("/dev/full").open("w") as full, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "__stdout__", full)
        entry.main()
    assert stop.value.code == 125
    said = capsys.readouterr().err
    assert said.startswith(
        "corral: error: standard output cannot be written: No space left on device.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "schema"),  # more than a buffer holds
        ("agent", "list"),
        ("--version",),
        ("run", "--json", "--config", "/none/such", "--", "true"),  # its error, as an event
    ],
)
def test_output_that_cannot_be_written_is_told_once_and_not_again_at_exit(
    arguments: tuple[str, ...], project: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "corral", *arguments],
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 125
    assert process.stderr.splitlines() == [
        "corral: error: standard output cannot be written: No space left on device.",
        "  Make room where it is written to, or write it elsewhere.",
    ]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("config", "show", "--bogus"), 2),
        (("run", "--bogus"), 125),  # must not look like the command's own
        (("logs", "nosuch"), 125),
    ],
)
def test_an_error_that_cannot_be_told_has_its_status(
    arguments: tuple[str, ...], status: int, project: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "corral", *arguments], cwd=project, stderr=full, check=False
        )
    assert process.returncode == status
