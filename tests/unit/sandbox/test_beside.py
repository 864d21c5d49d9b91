"""What stands beside a machine: the interceptor and the gateway, where the plan has them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from unittest.mock import Mock

from corral.events import silent
from corral.proc import Helpers
from corral.sandbox import Parts
from corral.sandbox.ports import Ports
from corral.sandbox.start import _Machines
from tests.support import examples


async def test_without_secrets_and_gateways_there_is_no_process(tmp_path: Path) -> None:
    plan, helpers = examples.plan(), Mock(spec=Helpers)
    assert not plan.secrets and not plan.gateways
    machines = _Machines(plan, Mock(spec=Parts, facts=None), helpers, tmp_path, silent, None, None)
    async with contextlib.AsyncExitStack() as stack:
        await machines.prepare(stack, None, None, kept=False)
        attempt = machines.attempt(Mock(spec=Ports), keep=False)
    assert helpers.mock_calls == []
    assert attempt._plan is plan
