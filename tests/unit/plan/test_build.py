"""What is wanted, and what the host has, decide everything that will be done."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest

from corral.errors import PlanError
from corral.host import KvmFinding, OsRelease, Program, User, Virtiofsd
from corral.plan import build
from corral.policy import Network
from corral.spec.model import AgentSpec, Limits, Share
from tests.support import examples
from tests.support.golden import Golden

LIMITS = Limits(memory=1 << 28, cpu=50, pids=100)
KVM_STATES = ("absent", "denied", "emulates", "error", "unmeasured")


def plan_as_lines(**wanted: Any) -> list[str]:
    """A plan as indented JSON, each step of a tree in one line."""
    plan = examples.plan(examples.spec(**wanted))
    shown: dict[str, Any] = {
        "toolbox tree": [" ".join(step.argv()) for step in plan.toolbox.tree],
        **{name: getattr(plan, name) for name in ("name", "machine", "modules", "setup", "notes")},
    }
    for agent in plan.agents:
        tree: Any = agent.setup["tree"]
        name = "agent" if len(plan.agents) == 1 else f"agent {agent.number}"
        shown |= {
            f"{name} tree": [" ".join(step.argv()) for step in agent.export.tree],
            f"{name} jail": agent.jail,
            f"{name} setup": {**agent.setup, "tree": [" ".join(map(str, step)) for step in tree]},
            f"{name} environment": [f"{key}={value}" for key, value in agent.environment],
            f"{name} workdir": agent.workdir,
            f"{name} watched": agent.watched,
        }
    return json.dumps(msgspec.to_builtins(shown), indent=1).splitlines()


def test_the_plan_of_an_ordinary_user(golden: Golden) -> None:
    golden("ordinary-user", plan_as_lines())


def test_the_plan_of_a_command_as_root_with_shares_and_tools(golden: Golden) -> None:
    lines = plan_as_lines(
        run={"user": "root", "tools": ("/home/ada/.nvm",), "env": (("MODE", "ci"),)},
        shares=(
            Share(source="/srv/data", target="/data", writable=False),
            Share(source="/srv/out", target="/out", writable=True),
        ),
    )
    golden("root-with-shares", lines)


def test_the_plan_of_three_agents_with_something_of_their_own_each(golden: Golden) -> None:
    data = Share(source="/home/ada/data", target="/shared", writable=False)
    state = Share(source="/state/2", target="/home/ada/.claude", writable=True)
    lines = plan_as_lines(
        shares=(data,),
        agents=(
            AgentSpec(number=1, workspace="own", copy="/reviews/demo/1/work", limits=LIMITS),
            AgentSpec(
                number=2,
                workspace="own",
                copy="/reviews/demo/2/work",
                shares=(state,),
                tools=("/opt/claude",),
                env=(("MODE", "ci"),),
                home=1 << 26,
                tmp=1 << 25,
            ),
            AgentSpec(number=3, workspace="together", network=Network(mode="internet")),
        ),
    )
    golden("three-agents", lines)


def test_the_plan_of_two_agents_whose_use_of_a_disk_is_limited(golden: Golden) -> None:
    lines = plan_as_lines(
        machine={"disk": 20 << 30},
        agents=(
            AgentSpec(number=1, limits=Limits(io_read=50 << 20, io_write=20 << 20)),
            AgentSpec(number=2, limits=Limits(io_write=1 << 20)),
        ),
    )
    golden("two-agents-on-a-disk", lines)


def test_planning_twice_gives_the_same_plan() -> None:
    assert examples.plan() == examples.plan()


# The accelerator


def test_kvm_is_used_where_it_works() -> None:
    plan = examples.plan(host=examples.facts(kvm=examples.KVM_WORKS))
    assert plan.machine.accel == "kvm"


@pytest.mark.parametrize("state", KVM_STATES)
def test_tcg_is_used_where_kvm_does_not_work(state: Any) -> None:
    plan = examples.plan(host=examples.facts(kvm=KvmFinding(state, "so it is.")))
    assert plan.machine.accel == "tcg"


def test_tcg_can_be_asked_for_where_kvm_works() -> None:
    wanted = examples.spec(machine={"accel": "tcg"})
    assert examples.plan(wanted, examples.facts(kvm=examples.KVM_WORKS)).machine.accel == "tcg"


@pytest.mark.parametrize("state", KVM_STATES)
def test_kvm_asked_for_where_it_does_not_work_is_refused_with_the_reason(state: Any) -> None:
    wanted = examples.spec(machine={"accel": "kvm"})
    with pytest.raises(PlanError, match="so it is") as caught:
        examples.plan(wanted, examples.facts(kvm=KvmFinding(state, "so it is.")))
    assert "--accel" in (caught.value.hint or "")


# Limits of the host


def test_all_cpus_and_all_memory_may_be_asked_for() -> None:
    wanted = examples.spec(machine={"cpus": 4, "memory": 8 * examples.GIB})
    machine = examples.plan(wanted).machine
    assert (machine.cpus, machine.memory) == (4, 8 * examples.GIB)


def test_more_cpus_than_the_host_has_are_refused() -> None:
    with pytest.raises(PlanError, match=r"5 CPUs .* has 4") as caught:
        examples.plan(examples.spec(machine={"cpus": 5}))
    assert "at most 4" in (caught.value.hint or "")


def test_more_memory_than_the_host_has_is_refused() -> None:
    with pytest.raises(PlanError, match=r"8193 MiB .* has 8192 MiB") as caught:
        examples.plan(examples.spec(machine={"memory": (8 << 30) + (1 << 20)}))
    assert "--memory" in (caught.value.hint or "")


# Who commands are


@pytest.mark.parametrize("name", ["bob", "nobody", "0"])
def test_any_other_user_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match=f"cannot run as {name}") as caught:
        examples.plan(examples.spec(run={"user": name}))
    assert "you (ada) and root" in caught.value.message


def test_the_users_own_name_may_be_said() -> None:
    named = examples.plan(examples.spec(run={"user": "ada"}))
    assert named == examples.plan()


def agent_jail(run_as: str | None = None, **facts: Any) -> dict[str, Any]:
    plan = examples.plan(examples.spec(run={"user": run_as}), examples.facts(**facts))
    return plan.agents[0].jail


def ids(text: Any) -> list[tuple[int, int, int]]:
    """The lines of an id map: (inside, outside, count)."""
    rows = [tuple(int(word) for word in line.split()) for line in str(text).splitlines()]
    return [(inside, outside, count) for inside, outside, count in rows]


def test_an_ordinary_users_jail_maps_the_user_to_the_agent_and_root_to_nobody() -> None:
    setup = agent_jail()
    assert setup["root"] is False
    assert ids(setup["uid_map"]) == ids(setup["gid_map"]) == [(0, 65534, 1), (1000, 2001, 1)]


@pytest.mark.parametrize("host_user", [examples.ADA, examples.ROOT])
def test_roots_jail_maps_root_to_the_agent_and_gives_ids_of_its_own(host_user: Any) -> None:
    setup = agent_jail("root", user=host_user)
    assert setup["root"] is True
    assert (0, 2001, 1) in ids(setup["uid_map"])
    assert ids(setup["uid_map"]) == ids(setup["gid_map"])


@pytest.mark.parametrize("user", [None, "root"])
def test_id_maps_are_what_the_kernel_takes(user: str | None) -> None:
    """Ranges overlap neither inside nor outside, and none reaches the guest's real root."""
    rows = ids(agent_jail(user)["uid_map"])
    for side in (0, 1):
        ranges = sorted((row[side], row[side] + row[2]) for row in rows)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))
    assert all(outside >= 1000 for _inside, outside, _count in rows)


def test_root_on_the_host_is_root_in_the_guest_without_asking() -> None:
    assert agent_jail(None, user=examples.ROOT)["root"] is True


# Where files come from


def test_9p_needs_other_modules_and_mount_options() -> None:
    machine = {"filesystem": "9p", "p9_cache": "loose", "p9_msize": 65536}
    plan = examples.plan(examples.spec(machine=machine))
    assert {"9p", "9pnet_virtio"} <= set(plan.modules)
    assert "virtiofs" not in plan.modules
    mount: Any = plan.setup["toolbox"]
    assert mount["kind"] == "9p"
    options = mount["options"].split(",")
    assert {"trans=virtio", "version=9p2000.L", "cache=loose", "msize=65536"} <= set(options)


@pytest.mark.parametrize(
    ("distribution", "daemon", "user", "transport"),
    [
        ("debian", None, examples.ADA, "virtiofs"),  # Debian's daemon can be fetched
        ("fedora", examples.OLD_RUST_VIRTIOFSD, examples.ADA, "virtiofs"),
        ("ubuntu", examples.C_VIRTIOFSD, examples.ROOT, "virtiofs"),
        ("ubuntu", examples.C_VIRTIOFSD, examples.ADA, "9p"),  # it serves root only
        ("arch", None, examples.ADA, "9p"),
    ],
)
def test_auto_means_9p_only_where_no_virtiofsd_can_be_had(
    distribution: str, daemon: Virtiofsd | None, user: User, transport: str
) -> None:
    facts = examples.facts(
        os_release=OsRelease(distribution, "1", distribution, ""), virtiofsd=daemon, user=user
    )
    assert examples.plan(host=facts).machine.transport == transport


# Checkpoints

CHECKPOINTS: dict[str, Any] = {"machine": {"checkpoints": True}}
NEW_QEMU = Program(("/usr/bin/qemu-system-x86_64",), "10.0.0", ("/usr",))
OTHER = OsRelease("fedora", "40", "Fedora 40", "")


def test_checkpoints_are_had_where_debian_gives_what_the_host_lacks() -> None:
    assert examples.plan(examples.spec(**CHECKPOINTS)).machine.checkpoints
    assert not examples.plan().machine.checkpoints


def test_checkpoints_are_had_where_the_host_is_new_enough() -> None:
    facts = examples.facts(os_release=OTHER, qemu=NEW_QEMU, virtiofsd=examples.RUST_VIRTIOFSD)
    plan = examples.plan(examples.spec(**CHECKPOINTS), facts)
    assert plan.machine.checkpoints and plan.machine.transport == "virtiofs"


@pytest.mark.parametrize(
    ("qemu", "daemon", "named"),
    [
        (examples.QEMU, examples.RUST_VIRTIOFSD, "QEMU 10.0 or later .this machine has 7.2.22"),
        (NEW_QEMU, examples.OLD_RUST_VIRTIOFSD, "virtiofsd 1.13 or later .this machine has 1.10"),
        (NEW_QEMU, examples.C_VIRTIOFSD, "Rust's virtiofsd 1.13"),
        (NEW_QEMU, None, "this machine has none"),
        (None, None, "QEMU 10.0 .* and Rust's virtiofsd"),
    ],
)
def test_checkpoints_are_refused_where_they_cannot_be_had(
    qemu: Program | None, daemon: Virtiofsd | None, named: str
) -> None:
    facts = examples.facts(os_release=OTHER, qemu=qemu, virtiofsd=daemon)
    with pytest.raises(PlanError, match=named) as caught:
        examples.plan(examples.spec(**CHECKPOINTS), facts)
    assert caught.value.hint


@pytest.mark.parametrize("machine", [{"carrier": "vsock"}, {"filesystem": "9p"}])
def test_checkpoints_are_refused_with_devices_that_cannot_be_saved(machine: Any) -> None:
    wanted = examples.spec(machine={"checkpoints": True, **machine})
    with pytest.raises(PlanError, match="cannot be saved"):
        examples.plan(wanted)


def test_virtiofs_is_what_auto_means() -> None:
    plan = examples.plan()
    assert "virtiofs" in plan.modules
    assert plan.setup["toolbox"] == {"tag": "toolbox", "kind": "virtiofs", "options": ""}


@pytest.mark.parametrize(
    ("wanted", "carrier"), [("auto", "serial"), ("serial", "serial"), ("vsock", "vsock")]
)
def test_the_carrier_is_serial_unless_vsock_is_asked_for(wanted: str, carrier: str) -> None:
    assert examples.plan(examples.spec(machine={"carrier": wanted})).machine.carrier == carrier


def test_commands_start_in_the_workspace_or_where_they_are_told() -> None:
    assert examples.plan().agents[0].workdir == examples.PROJECT
    assert examples.plan(examples.spec(run={"workdir": "/tmp"})).agents[0].workdir == "/tmp"


def test_nothing_is_watched_for_in_a_workspace_that_cannot_be_written() -> None:
    assert examples.plan().agents[0].watched == (f"{examples.PROJECT}/corral.toml",)
    assert examples.plan(examples.spec(workspace={"read_only": True})).agents[0].watched == ()


def test_warnings_of_the_spec_reach_the_plan() -> None:
    assert examples.plan(examples.spec(warnings=("a secret is passed on.",))).notes == (
        "a secret is passed on.",
    )


def test_what_the_guest_is_told_is_json() -> None:
    plan = examples.plan()
    for setup in (plan.setup, plan.agents[0].setup):
        assert msgspec.json.decode(msgspec.json.encode(setup))


def test_little_of_the_hosts_environment_is_taken() -> None:
    host = {
        **{"PATH": "/home/ada/bin:/usr/bin", "LANG": "de_DE.UTF-8", "LC_TIME": "C"},
        **{"AWS_SECRET_ACCESS_KEY": "x", "SSH_AUTH_SOCK": "/run/ssh", "HOME": "/home/ada"},
        **{"LD_PRELOAD": "/evil.so", "DISPLAY": ":0", "PYTHONPATH": "/x"},
    }
    plan = build(examples.spec(), examples.facts(), examples.layout(), host, examples.FILTERS)
    taken = dict(plan.agents[0].environment)
    assert set(taken) == {"HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH", "CORRAL", "LC_TIME"}
    assert taken["LANG"] == "de_DE.UTF-8"
    assert "/home/ada/bin" not in taken["PATH"]
