"""Progress is for people who wait: on their terminal, after half a second, never in the way."""

from __future__ import annotations

import io
import sys

import pytest

from corral.cli import progress
from corral.cli.progress import Progress
from corral.events import Notice, Phase

HIDE_CURSOR = "\x1b[?25l"


class Terminal(io.StringIO):
    """Standard error at which a person sits."""

    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by the test itself: pytest replaces sys.stderr after fixtures."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def wait_for_patience_to_end(report: Progress) -> None:
    assert report._timer is not None
    report._timer.join(10)


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = at_a_terminal(monkeypatch)
    report = Progress()
    report(Phase(name="boot", message="booting the guest"))
    report(Phase(name="agent", message="setting up the guest"))
    report.stop()
    assert screen.getvalue() == ""


def test_what_takes_long_is_shown_and_taken_away_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    report = Progress()
    report(Phase(name="boot", message="booting the guest"))
    wait_for_patience_to_end(report)
    report(Phase(name="agent", message="setting up [red]/a path[/red]"))
    report.stop()
    assert "setting up [red]/a path[/red]" in screen.getvalue()
    assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind(HIDE_CURSOR)
    shown = len(screen.getvalue())
    report.stop()
    assert len(screen.getvalue()) == shown


def test_a_notice_keeps_its_line_beside_the_spinner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    report = Progress()
    report(Phase(name="boot", message="booting the guest"))
    wait_for_patience_to_end(report)
    report(Notice(level="warning", message="[bold]not markup[/bold]"))
    report.stop()
    assert "corral: [bold]not markup[/bold]" in screen.getvalue()


def test_a_notice_is_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    report = Progress()
    report(Phase(name="boot", message="booting the guest"))
    report(Notice(level="info", message="TCG is used."))
    report.stop()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "corral: TCG is used.\n")


def test_nobody_watching_starts_no_timer(capsys: pytest.CaptureFixture[str]) -> None:
    report = Progress()
    report(Phase(name="boot", message="booting the guest"))
    assert report._timer is None
