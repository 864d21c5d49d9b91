"""The agents of a herd, as tasks see them: whose folder, whose turn, whose gateways."""

from __future__ import annotations

import msgspec

from corral.policy import Gateway, Key
from corral.spec import AgentSpec
from corral.tasks.places import places
from tests.support.examples import ADA, PROJECT, plan, spec

KEY = Key(kind="env", value=("K",))
GATEWAYS = tuple(
    Gateway(name=name, dialect="openai", upstream="https://o.test", key=KEY) for name in "abc"
)


def test_of_one_agent_the_folder_is_the_workspace() -> None:
    wanted = spec()
    (only,) = places(wanted, plan(wanted)).values()
    assert (only.agent, only.folder, only.workdir, only.recipe) == (1, PROJECT, PROJECT, None)
    assert only.home == ADA.home and "PATH" in only.variables
    read_only = msgspec.structs.replace(
        wanted, workspace=msgspec.structs.replace(wanted.workspace, read_only=True)
    )
    assert places(read_only, plan(read_only))[1].folder is None


def test_agents_with_copies_work_side_by_side_and_those_in_turn_one_after_another() -> None:
    agents = (
        AgentSpec(number=1, workspace="own", copy="/copies/1", gateways=("c", "a", "gone")),
        AgentSpec(number=2, workspace="turns", recipe="claude"),
        AgentSpec(number=3, workspace="turns"),
        AgentSpec(number=4, workspace="together"),
    )
    wanted = msgspec.structs.replace(spec(), agents=agents, gateways=GATEWAYS)
    found = places(wanted, plan(wanted))
    assert [place.folder for place in found.values()] == ["/copies/1", *[PROJECT] * 3]
    assert all(place.workdir == "/workspace" for place in found.values())
    lanes = [place.lane for place in found.values()]
    assert lanes[1] == lanes[2] and len(set(lanes)) == 3
    assert [gateway.name for gateway in found[1].gateways] == ["c", "a"]
    assert [gateway.name for gateway in found[2].gateways] == ["a", "b", "c"]
    assert [place.recipe for place in found.values()] == [None, "claude", None, None]
