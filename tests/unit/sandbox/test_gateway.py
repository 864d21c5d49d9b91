"""What the gateway's process is told of a plan."""

from __future__ import annotations

import msgspec

from corral.gateway.config import Config
from corral.policy import Gateway
from corral.sandbox.gateway import configured
from corral.spec import AgentSpec
from tests.support import examples

GATEWAYS = tuple(
    Gateway(name=name, dialect="openai", upstream="https://x.test", key=None)
    for name in ("one", "two")
)


def test_it_is_told_which_agents_may_not_use_every_gateway() -> None:
    agents = (
        AgentSpec(number=1),
        AgentSpec(number=2, gateways=("two",)),
        AgentSpec(number=3, gateways=()),
    )
    plan = examples.plan(examples.spec(agents=agents, gateways=GATEWAYS))
    config = configured(plan, "life", kept=True)
    assert config.agents == (1, 2, 3)
    assert config.allowed == {2: ("two",), 3: ()}
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config
