"""From a Spec to a Plan on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import PlanError
from corral.sandbox import make_plan
from corral.spec import AgentSpec, Limits
from tests.support import examples


def test_what_keeps_nothing_has_no_disk_and_no_limit_of_its_use(tmp_path: Path) -> None:
    """Settings that are for `corral up` do not make `corral run` an error."""
    agent = AgentSpec(limits=Limits(io_write=1 << 20, pids=100))
    wanted: dict[str, Any] = {"workspace": {"path": str(tmp_path)}, "agents": (agent,)}
    spec = examples.spec(machine={"disk": 1 << 30}, **wanted)
    kept = make_plan(spec, examples.facts(), {}, kept=True).agents[0].setup
    assert kept["limits"] == [["pids.max", "100"], ["io.max", "wbps=1048576"]]
    plain = make_plan(spec, examples.facts(), {}).agents[0].setup
    assert (plain["limits"], plain["disk"]) == ([["pids.max", "100"]], False)
    with pytest.raises(PlanError, match="no disk"):
        make_plan(examples.spec(**wanted), examples.facts(), {})
