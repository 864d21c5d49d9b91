"""Limits become files of a control group or properties of a scope, or an error says why not."""

from __future__ import annotations

import pytest

from corral.errors import PlanError
from corral.host.cgroups import Cgroups
from corral.plan import limits
from corral.spec import Limits

GIB = 1 << 30
EVERYTHING = Limits(
    memory=6 * GIB, cpu=150, pids=500, io_weight=50, io_read=50 << 20, io_write=20 << 20
)
ALL = ("cpu", "cpuset", "io", "memory", "pids")
OWN = Cgroups("v2", base="/sys/fs/cgroup/box", controllers=ALL)
USER = Cgroups("v2", manager="user", offers=ALL, systemd_run="/usr/bin/systemd-run")


def test_no_limits_need_nothing() -> None:
    assert limits.build(Limits(), Cgroups("none"), None) is None


def test_a_group_of_our_own_gets_files() -> None:
    found = limits.build(EVERYTHING, OWN, "259:0")
    assert found is not None and (found.way, found.base) == ("subtree", "/sys/fs/cgroup/box")
    assert found.controllers == ("cpu", "io", "memory", "pids")
    assert found.files == (
        ("memory.max", "6442450944"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("cpu.max", "150000 100000"),
        ("pids.max", "500"),
        ("io.weight", "default 50"),
        ("io.max", "259:0 rbps=52428800 wbps=20971520"),
    )


def test_systemd_makes_a_scope_with_properties() -> None:
    found = limits.build(EVERYTHING, USER, "259:0")
    assert found is not None
    assert limits.scope(found, "corral-demo-1a2b3c", "corral sandbox demo") == (
        *("/usr/bin/systemd-run", "--user", "--scope", "--quiet", "--collect"),
        *("--unit=corral-demo-1a2b3c", "--description=corral sandbox demo"),
        *("-p", "MemoryMax=6442450944", "-p", "MemorySwapMax=0", "-p", "CPUQuota=150%"),
        *(
            "-p",
            "TasksMax=500",
            "-p",
            "IOWeight=50",
            "-p",
            "IOReadBandwidthMax=/dev/block/259:0 52428800",
        ),
        *("-p", "IOWriteBandwidthMax=/dev/block/259:0 20971520", "--"),
    )


def test_a_group_of_our_own_is_preferred() -> None:
    both = Cgroups("v2", "/sys/fs/cgroup/x", ALL, "system", ALL, "/usr/bin/systemd-run")
    found = limits.build(Limits(pids=100), both, None)
    assert found is not None and found.way == "subtree"
    poor = Cgroups("v2", "/sys/fs/cgroup/x", ("cpu",), "system", ALL, "/usr/bin/systemd-run")
    found = limits.build(Limits(pids=100), poor, None)
    assert found is not None and found.way == "scope"


@pytest.mark.parametrize(
    ("groups", "wanted", "why", "hint"),
    [
        (Cgroups("v1"), Limits(pids=100), "cgroup v1", "unified_cgroup_hierarchy"),
        (Cgroups("hybrid"), Limits(cpu=50), "hybrid", "unified_cgroup_hierarchy"),
        (Cgroups("none"), Limits(memory=GIB), "no cgroup file system", "leave the limits out"),
        (Cgroups("v2"), Limits(memory=GIB), "no systemd runs for you", "corral unit"),
        (
            Cgroups("v2", manager="user", offers=("memory",), systemd_run="/usr/bin/systemd-run"),
            Limits(cpu=50, io_weight=10, memory=GIB),
            "controllers cpu, io",
            "Delegate=cpu",
        ),
        (
            Cgroups("v2", base="/sys/fs/cgroup/x", controllers=("cpu",)),
            Limits(pids=99),
            "pids",
            "Delegate",
        ),
        (OWN, Limits(io_read=1 << 20), "no disk of its own", "io_weight"),
    ],
    ids=["v1", "hybrid", "none", "nobody", "not delegated", "others in it", "no disk"],
)
def test_what_cannot_be_enforced_is_refused(
    groups: Cgroups, wanted: Limits, why: str, hint: str
) -> None:
    with pytest.raises(PlanError) as caught:
        limits.build(wanted, groups, None)
    assert why in caught.value.message
    assert hint in (caught.value.hint or "")
