"""`corral verify`, whole, on this very host: nothing fails, and what is not proven has a reason."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from corral.verify import all_probes
from tests.conftest import Corral


def lacking() -> set[str]:
    """The probes that cannot be carried out here: for want of another user, a table, an extra."""
    found: set[str] = set()
    if os.getuid() != 0:  # only root can be another user
        found |= {"other-user", "keeper-of-another"}
    if platform.machine() != "x86_64":  # only there are other tables of system calls
        found.add("foreign-system-calls")
    if find_spec("mitmproxy") is None:
        found |= {probe.id for probe in all_probes() if probe.family == "secrets"}
    return found


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout.startswith("{"), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(300)
def test_everything_that_can_be_tried_here_is_proven(corral: Corral) -> None:
    done = corral("verify", "--json", timeout=280)
    found = answer(done)
    failed = {each["id"]: each["seen"] for each in found["results"] if each["verdict"] == "failed"}
    assert failed == {}
    degraded = {
        each["id"]: each["seen"] for each in found["results"] if each["verdict"] == "degraded"
    }
    assert set(degraded) == lacking(), degraded
    assert [each["id"] for each in found["results"]] == [probe.id for probe in all_probes()]
    assert done.returncode == (3 if degraded else 0)
    # A machine that could not be restored in time, on a busy host, was booted: that is said.
    assert all("booting one" in line for line in done.stderr.splitlines()), done.stderr


@pytest.mark.parametrize("held_back", ["", "review = true\n"])
def test_a_projects_own_sandbox_is_attacked_and_the_project_left_as_it_is(
    corral: Corral, project: Path, held_back: str
) -> None:
    """As `corral run` would start it: on a copy where changes are reviewed."""
    (project / "corral.toml").write_text(f'[workspace]\nmask = [".env"]\n{held_back}')
    (project / "file").write_text("of the project")
    before = {path: path.stat().st_mtime_ns for path in (project, *project.rglob("*"))}
    reviews = json.loads(corral("diff", "--json").stdout)  # of other tests, too
    done = corral(
        "verify", "--spec", "--json", "--only", "exports", "--only", "vm", "--only", "host"
    )
    found = answer(done)
    short = {each["id"]: each["seen"] for each in found["results"] if each["verdict"] != "proven"}
    assert set(short) <= lacking(), short
    assert {"workspace-is-the-hosts", "programs-stay"} <= {r["id"] for r in found["results"]}
    assert "share-content-from-jail" not in {r["id"] for r in found["results"]}
    assert json.loads(corral("diff", "--json").stdout) == reviews
    after = {path: path.stat().st_mtime_ns for path in (project, *project.rglob("*"))}
    assert after.keys() == before.keys()
    assert {p: t for p, t in after.items() if p != project} == {
        p: t for p, t in before.items() if p != project
    }


def test_a_project_that_asks_for_too_much_is_one_plain_error(corral: Corral, project: Path) -> None:
    (project / "corral.toml").write_text("[herd]\nagents = 2\n")
    done = corral("verify", "--spec", "--only", "vm")
    assert (done.returncode, done.stdout) == (125, "")
    assert "herd.agents: 2 instead of 1" in done.stderr and "internal" not in done.stderr
