"""The crash points of the kill tests: each is real, and none does anything by itself."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import corral
from corral.proc.crash import CHECKPOINT_POINTS, POINTS, REVIEW_POINTS, VARIABLE, crash_point

SOURCE = Path(corral.__file__).parent


def test_every_point_is_in_the_program_once_and_no_other() -> None:
    found: Counter[str] = Counter()
    for file in SOURCE.rglob("*.py"):
        if file.name != "crash.py":
            found.update(re.findall(r'crash_point\("([^"]+)"\)', file.read_text()))
    assert found == Counter((*POINTS, *CHECKPOINT_POINTS, *REVIEW_POINTS))


def test_a_point_does_nothing_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    crash_point(POINTS[0])
    monkeypatch.setenv(VARIABLE, POINTS[1])
    crash_point(POINTS[0])


def test_a_named_point_kills_at_once() -> None:
    code = "from corral.proc import crash_point; crash_point('warden-up'); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={VARIABLE: "warden-up", "PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
