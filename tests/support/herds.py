"""Sandboxes of several agents for tests, each agent with a copy of the folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from corral.events import Report, silent
from corral.host import measure
from corral.review.working import working_copy
from corral.sandbox import Sandbox, make_plan, prepare, start
from corral.spec import load_spec
from tests.support.sandboxes import DEFAULTS


@contextlib.asynccontextmanager
async def herd_on(
    folder: Path,
    state: Path,
    agents: int,
    overrides: Mapping[str, object] | None = None,
    *,
    report: Report = silent,
) -> AsyncIterator[Sandbox]:
    """A running sandbox of so many agents on `folder`. state: where their snapshots are kept."""
    wanted = {**DEFAULTS, "herd.agents": agents, **(overrides or {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_STATE_DIR", str(state))
        spec = load_spec(folder, wanted, os.environ)
        with working_copy(spec) as (spec, _notices):
            facts = measure()
            plan = make_plan(spec, facts, os.environ)
            async with start(plan, prepare(plan, facts, silent), report) as sandbox:
                yield sandbox
