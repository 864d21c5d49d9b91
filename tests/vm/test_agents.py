"""How agents are, as the command line and the SDK tell it; and their limits on a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral import Sandbox
from corral.sandbox import start
from tests.conftest import Corral
from tests.support.sandboxes import lines, plan_for, python

SMALL = ("--memory", "768m", "--cpus", "1", "--agents", "2", "--agent-workspace", "together")


def listed(corral: Corral) -> list[dict[str, Any]]:
    done = corral("agents", "pair", "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_the_agents_of_a_kept_sandbox_are_shown(
    project: Path, corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    try:
        assert corral("up", "pair", "-d", *SMALL).returncode == 0
        kill = "echo hello; kill -9 $(pgrep -x corral)"
        assert corral("exec", "pair", "--agent", "2", "--", "sh", "-c", kill).returncode == 137
        first, second = listed(corral)
        assert (first["state"], first["reason"]) == ("idle", "")
        assert first["pids"] >= 2 and first["memory"] > 100_000 and first["heard"] < 60
        assert (second["state"], second["reason"]) == ("dead", "its jail has ended")
        assert second["quiet"] is not None
        shown = corral("agents", "pair").stdout.splitlines()
        assert [line.split()[:2] for line in shown[1:3]] == [["1", "idle"], ["2", "dead"]]
        assert shown[3] == "agent 2: its jail has ended"
        events = [json.loads(line) for line in corral("events", "pair").stdout.splitlines()]
        told = [(each["agent"], each["state"]) for each in events if each["event"] == "agent"]
        assert sorted(told[:2]) == [(1, "idle"), (2, "idle")] and told[-1] == (2, "dead")
        done = corral("exec", "pair", "--agent", "2", "--", "true")
        assert (done.returncode, "the jail has ended" in done.stderr) == (125, True)
        assert corral("pause", "pair").returncode == 0
        assert "paused" in corral("agents", "pair").stderr
    finally:
        corral("rm", "-f", "pair")
    assert corral("agents", "pair").returncode == 125


def test_the_sdk_tells_the_same(project: Path) -> None:
    with Sandbox(workspace=project, memory="768MiB", cpus=1) as box:
        process = box.spawn(["sleep", "600"])
        (state,) = box.agent_states()
        assert (state.number, state.state, state.commands) == (1, "working", 1)
        process.close()


MOVE = """
import subprocess, time
for words in (["of=/var/tmp/big", "if=/dev/zero", "oflag=direct", "conv=fsync"],
              ["if=/var/tmp/big", "of=/dev/null", "iflag=direct"]):
    began = time.monotonic()
    subprocess.run(["dd", "bs=1M", "count=5", "status=none", *words], check=True)
    print(time.monotonic() - began)
"""


async def test_an_agents_use_of_the_disk_can_be_limited(project: Path, tmp_path: Path) -> None:
    """Neither the page cache nor a layer above the disk is a way around; others are not held up."""
    overrides = {
        **{"machine.disk": "1GiB", "herd.agents": 2, "herd.workspace": "together"},
        "agent": [{"io_write": "1MiB", "io_read": "1MiB"}, {}],
    }
    plan, parts = plan_for(project, overrides, kept=True)
    async with start(plan, parts, lambda _event: None, disk=tmp_path / "disk") as sandbox:
        took = [
            [float(line) for line in lines(await python(sandbox, MOVE, agent=number))]
            for number in (1, 2)
        ]
    for limited, free in zip(*took, strict=True):
        assert limited > 3 * free, took
