"""Whose control groups are whose, on hosts of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.host import cgroups
from corral.host.cgroups import Cgroups, disk_of, find_cgroups

from .hosts import Host

ALL = "cpuset cpu io memory pids\n"
SLICE = "/user.slice/user-1000.slice"
SCOPE = f"{SLICE}/session-3.scope"
UNIT = f"{SLICE}/user@1000.service/app.slice/corral.service"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def group(
    host: Host, path: str, *, controllers: str = ALL, procs: str = "", enabled: str = ""
) -> None:
    """A control group, and this process in it."""
    folder = f"/sys/fs/cgroup{path}"
    host.put(f"{folder}/cgroup.controllers", controllers)
    host.put(f"{folder}/cgroup.procs", procs or f"{os.getpid()}\n")
    host.put(f"{folder}/cgroup.subtree_control", enabled)
    host.put("/proc/self/cgroup", f"0::{path}\n")


def systemd(host: Host, *, user: bool = True) -> None:
    """systemd runs; the user's, too."""
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.put("/sys/fs/cgroup/cgroup.controllers", ALL)
    host.program("/usr/bin/systemd-run")
    if user:
        host.put("/run/user/1000/systemd/private")
        host.put(f"/sys/fs/cgroup{SLICE}/user@1000.service/cgroup.controllers", "cpu memory pids\n")


def find(host: Host, uid: int = 1000) -> Cgroups:
    return find_cgroups(host.system(uid=uid, environ={"XDG_RUNTIME_DIR": "/run/user/1000"}))


def test_nothing_is_nothing(host: Host) -> None:
    assert find(host) == Cgroups("none")


def test_cgroup_v1_and_the_hybrid_have_no_controllers_for_us(host: Host) -> None:
    (host.root / "sys/fs/cgroup/memory").mkdir(parents=True)
    assert find(host) == Cgroups("v1")
    host.put("/sys/fs/cgroup/unified/cgroup.controllers", "")
    assert find(host) == Cgroups("hybrid")


def test_a_login_gets_scopes_from_its_systemd(host: Host) -> None:
    systemd(host)
    group(host, SCOPE)
    found = find(host)
    assert found.base is None, "a session's scope is systemd's"
    assert (found.manager, found.offers) == ("user", ("cpu", "memory", "pids"))
    assert found.systemd_run == "/usr/bin/systemd-run"


def test_root_gets_scopes_from_the_systems(host: Host) -> None:
    systemd(host, user=False)
    group(host, "/user.slice/user-0.slice/session-1.scope")
    assert find(host, uid=0).manager == "system"
    assert find(host, uid=1000).manager is None, "no systemd runs for this user"


def test_a_delegated_unit_is_ours_to_divide(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd(host)
    group(host, UNIT)

    def marked(path: object, name: str) -> bytes:
        if name == "user.delegate":
            return b"1"
        raise OSError(61, "No data available")

    monkeypatch.setattr(os, "getxattr", marked)
    found = find(host)
    assert found.base == f"/sys/fs/cgroup{UNIT}"
    assert found.controllers == tuple(ALL.split())
    host.put("/proc/self/cgroup", f"0::{UNIT}/{cgroups.OWN_LEAF}\n")
    assert find(host).base == found.base, "corral has moved itself for an earlier sandbox"


def test_a_group_with_others_in_it_gives_what_is_enabled_already(host: Host) -> None:
    host.put("/sys/fs/cgroup/cgroup.controllers", ALL)
    group(host, "/box", procs="1\n2\n", enabled="pids memory\n")
    found = find(host)
    assert (found.base, found.controllers) == ("/sys/fs/cgroup/box", ("pids", "memory"))


def test_a_group_that_cannot_be_written_to_is_not_ours(host: Host) -> None:
    host.put("/sys/fs/cgroup/cgroup.controllers", ALL)
    host.put("/proc/self/cgroup", "0::/elsewhere\n")
    assert find(host).base is None
    host.put("/proc/self/cgroup", "0::/../..\n")  # outside this cgroup namespace
    assert find(host).base is None


def test_the_disk_under_a_folder_is_the_whole_one(host: Host) -> None:
    number = host.root.stat().st_dev
    entry = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    host.put("/home/x")
    assert disk_of(host.system(), "/home/x") is None, "btrfs, overlay, tmpfs"
    host.put(f"{entry}/dev", "259:1\n")
    assert disk_of(host.system(), "/home/x") == "259:1"
    host.put(f"{entry}/partition", "1\n")
    host.put("/sys/dev/block/dev", "259:0\n")
    assert disk_of(host.system(), "/home/x") == "259:0"
    assert disk_of(host.system(), "/gone") is None
