"""Killed at every named point of a run, corral leaves nothing on the host."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from corral.proc.crash import POINTS, VARIABLE
from corral.sandbox import sweep
from tests.support import leftovers
from tests.support.faults import Run, assert_nothing_left, build_template

# Before there is a warden, a killed corral leaves an empty folder to the next start.
BEFORE_THE_WARDEN = POINTS[: POINTS.index("warden-spawned")]
WHILE_IT_BOOTS = ("guest-ready", "jails-made")
OVER_VSOCK = tuple(point for point in POINTS if point.startswith("vsock"))


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_corral_leaves_nothing(project: Path, point: str) -> None:
    carrier = "vsock" if point in OVER_VSOCK else "serial"
    build_template(project)
    run = Run(
        project,
        ("sh", "-c", "echo done > result"),
        options=("--carrier", carrier, *(("--cold",) if point in WHILE_IT_BOOTS else ())),
        environment={VARIABLE: point},
    )
    assert run.end() == -signal.SIGKILL, (run.events, run.stderr)
    assert leftovers.wait_until_gone(15) == []
    if point in BEFORE_THE_WARDEN:
        assert len(leftovers.folders()) == len(sweep()) == 1
    assert_nothing_left()
    if POINTS.index(point) >= POINTS.index("after-sync"):
        assert (project / "result").read_text() == "done\n"
