"""Several agents in one plan: each as if it was alone, and none with what is another's."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import PlanError
from corral.plan import Plan
from corral.policy import Gateway, Network, Rule
from corral.proc.bwrap import Access, Bind
from corral.spec import MAX_AGENTS
from corral.spec.model import AgentSpec, Limits, Share
from tests.support import examples


def herd(count: int = 3, **wanted: Any) -> Plan:
    agents = tuple(AgentSpec(number=n, workspace="own", copy=f"/copies/{n}") for n in _upto(count))
    return examples.plan(examples.spec(**{"agents": agents, **wanted}))


def _upto(count: int) -> range:
    return range(1, count + 1)


def test_each_has_an_id_an_export_and_a_name_of_its_own() -> None:
    plan = herd(12)
    assert [agent.jail["uid"] for agent in plan.agents] == [2000 + n for n in _upto(12)]
    assert [agent.export.uid for agent in plan.agents] == [2000 + n for n in _upto(12)]
    assert [agent.setup["hostname"] for agent in plan.agents] == [f"demo-{n}" for n in _upto(12)]
    assert len({agent.export.tag for agent in plan.agents}) == 12
    maps = {line for agent in plan.agents for line in str(agent.jail["uid_map"]).splitlines()[1:]}
    assert len(maps) == 12, "no id of one is in another's map"


def test_each_finds_its_own_copy_at_the_same_place() -> None:
    for agent in herd().agents:
        bound = {step.target: step.source for step in agent.export.tree if isinstance(step, Bind)}
        assert bound["/export/workspace"] == f"/copies/{agent.number}"
        assert examples.PROJECT not in bound.values()
        assert agent.workdir == "/workspace" and agent.setup["parts"] == ["/workspace"]
        git = next(text for path, text, _ in _files(agent.setup) if path == "/etc/gitconfig")
        assert 'directory = "/workspace"' in git


def _files(setup: dict[str, object]) -> Any:
    return setup["files"]


def test_together_they_have_the_folder_itself_at_that_place() -> None:
    plan = examples.plan(examples.spec(agents=(AgentSpec(number=1), AgentSpec(number=2))))
    for agent in plan.agents:
        steps = [step for step in agent.export.tree if isinstance(step, Bind)]
        assert (steps[0].source, steps[0].target) == (examples.PROJECT, "/export/workspace")
        protected = [s.target for s in steps if s.access is Access.READ_ONLY]
        assert "/export/workspace/.git/hooks" in protected


def test_what_is_one_agents_alone_is_in_no_other_ones_tree_nor_in_the_toolbox() -> None:
    own = Share(source="/state/1", target="/home/ada/.claude", writable=False)
    plan = examples.plan(
        examples.spec(agents=(AgentSpec(number=1, shares=(own,)), AgentSpec(number=2)))
    )
    sources = [
        {step.source for step in export.tree if isinstance(step, Bind)}
        for export in (plan.toolbox, *(agent.export for agent in plan.agents))
    ]
    assert ["/state/1" in each for each in sources] == [False, True, False]
    access = {s.source: s.access for s in plan.agents[0].export.tree if isinstance(s, Bind)}
    assert access["/state/1"] is Access.READ_ONLY


def test_a_tool_of_one_agent_is_on_no_other_ones_path() -> None:
    agents = (AgentSpec(number=1, tools=("/home/ada/.nvm",)), AgentSpec(number=2))
    one, two = examples.plan(examples.spec(agents=agents)).agents
    assert "/home/ada/.nvm/bin" in dict(one.environment)["PATH"]
    assert "/home/ada/.nvm" not in dict(two.environment)["PATH"]


def test_of_several_none_is_without_limits() -> None:
    """One that takes all it can must leave room for the others."""
    machine = {"memory": 4 << 30}
    for agent in herd(machine=machine).agents:
        assert agent.setup["limits"] == [["memory.max", str(2 << 30)], ["pids.max", "2048"]]
        sizes = {step[1]: step[3] for step in _tree(agent.setup) if step[0] == "tmpfs"}
        assert set(sizes.values()) == {1 << 30}
        assert {"/tmp", "/dev/shm", "/run", "/var/tmp", "/home/ada"} == set(sizes)


def _tree(setup: dict[str, object]) -> Any:
    return setup["tree"]


def test_one_agent_has_the_limits_that_were_said_and_no_other() -> None:
    assert examples.plan().agents[0].setup["limits"] == []
    limits = Limits(memory=1 << 28, cpu=50, pids=100)
    agent = AgentSpec(limits=limits, home=1 << 20, tmp=1 << 21)
    (planned,) = examples.plan(examples.spec(agents=(agent,))).agents
    assert planned.setup["limits"] == [
        *(["memory.max", str(1 << 28)], ["cpu.max", "50000 100000"], ["pids.max", "100"]),
    ]
    sizes = {step[1]: step[3] for step in _tree(planned.setup) if step[0] == "tmpfs"}
    assert (sizes["/home/ada"], sizes["/tmp"]) == (1 << 20, 1 << 21)


def test_a_home_on_the_disk_that_all_share_has_no_size() -> None:
    agent = AgentSpec(home=1 << 20)
    with pytest.raises(PlanError, match="disk"):
        examples.plan(examples.spec(agents=(agent,), machine={"disk": 1 << 30}))


def test_use_of_the_disk_is_limited_where_there_is_one() -> None:
    """The device is left out: only the guest knows what the disk is called there."""
    agents = (
        AgentSpec(number=1, limits=Limits(io_read=5 << 20, io_write=1 << 20)),
        AgentSpec(number=2, limits=Limits(io_write=1 << 16)),
        AgentSpec(number=3),
    )
    planned = examples.plan(examples.spec(agents=agents, machine={"disk": 1 << 30})).agents
    limits = [dict(_limits(agent.setup)).get("io.max") for agent in planned]
    assert limits == ["rbps=5242880 wbps=1048576", "wbps=65536", None]
    assert all("memory.max" in dict(_limits(agent.setup)) for agent in planned)


def _limits(setup: dict[str, object]) -> Any:
    return setup["limits"]


@pytest.mark.parametrize("limits", [Limits(io_read=1 << 20), Limits(io_write=1 << 20)])
def test_without_a_disk_there_is_nothing_to_limit_and_that_is_said(limits: Limits) -> None:
    agents = (AgentSpec(number=1), AgentSpec(number=2, limits=limits))
    with pytest.raises(PlanError, match="of agent 2 cannot be limited") as caught:
        examples.plan(examples.spec(agents=agents))
    assert caught.value.hint is not None and "--disk" in caught.value.hint


def test_there_is_a_root_port_for_every_export() -> None:
    assert examples.plan().machine.ports == 4
    assert herd(12).machine.ports == 15
    assert herd(MAX_AGENTS).machine.ports == MAX_AGENTS + 3


def test_what_each_may_reach_is_its_own() -> None:
    rule = Rule(host="pypi.org", port=None, text="pypi.org")
    common = Network(mode="allow", allow=(rule,))
    agents = (AgentSpec(number=1), AgentSpec(number=2, network=Network(), gateways=()))
    gateway = Gateway(
        name="anthropic", dialect="anthropic", upstream="https://api.anthropic.com", key=None
    )
    one, two = examples.plan(
        examples.spec(agents=agents, network=common, gateways=(gateway,))
    ).agents
    assert one.setup["network"] and one.network is None and one.gateways is None
    assert "ANTHROPIC_BASE_URL" in dict(one.environment)
    assert two.setup["network"] is None and two.network == Network() and two.gateways == ()
    assert "ANTHROPIC_BASE_URL" not in dict(two.environment)


def test_agents_can_tell_who_they_are() -> None:
    assert [dict(a.environment)["CORRAL_AGENT"] for a in herd().agents] == ["1", "2", "3"]
    assert "CORRAL_AGENT" not in dict(examples.plan().agents[0].environment)


def test_a_long_name_leaves_room_for_the_number() -> None:
    for agent in herd(12, name="x" * 63).agents:
        assert len(str(agent.setup["hostname"])) == 63


@pytest.mark.parametrize(
    ("machine", "what"), [({"filesystem": "9p"}, "virtiofs"), ({"checkpoints": True}, "forked")]
)
def test_what_cannot_be_with_several_is_refused(machine: dict[str, Any], what: str) -> None:
    agents = (AgentSpec(number=1), AgentSpec(number=2))
    with pytest.raises(PlanError, match=what) as caught:
        examples.plan(examples.spec(agents=agents, machine=machine))
    assert caught.value.hint
