"""When user namespaces are refused, the setting that refuses them is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from corral.host import Finding, Program
from corral.host.system import Answer
from corral.host.userns import masked_proc, trial_argv, try_namespaces

from .hosts import Host, Programs

MakeHost = Callable[..., Host]
BWRAP = Program(("/usr/bin/bwrap",), "0.8.0", ("/usr",))
REFUSED = Answer(1, "", "bwrap: No permissions to create a new namespace\n")
FREE = "CapBnd:\t000001ffffffffff\nSeccomp:\t0\n"


def attempt(host: Host, answer: Answer = REFUSED, uid: int = 1000, **environ: str) -> Finding:
    return try_namespaces(host.system(Programs(bwrap=answer), uid=uid, environ=environ), BWRAP)


@pytest.fixture
def host(make_host: MakeHost) -> Host:
    host = make_host("ubuntu2404")
    host.put("/proc/self/status", FREE)
    return host


def test_the_trial_nests_two_bubblewraps() -> None:
    argv = trial_argv(BWRAP)
    assert argv.count("/usr/bin/bwrap") == 2 and argv[-1] == "true"


def test_success_is_success(host: Host) -> None:
    assert attempt(host, Answer(0, "", "")).ok


def test_switched_off_for_all(host: Host) -> None:
    host.put("/proc/sys/user/max_user_namespaces", "0\n")
    finding = attempt(host)
    assert "user.max_user_namespaces is 0" in finding.reason
    assert "No permissions" in finding.reason  # what bubblewrap said is not lost
    assert finding.hint is not None and "sysctl -w user.max_user_namespaces" in finding.hint


def test_switched_off_for_ordinary_users(host: Host) -> None:
    host.put("/proc/sys/kernel/unprivileged_userns_clone", "0\n")
    assert "kernel.unprivileged_userns_clone is 0" in attempt(host).reason
    assert "unprivileged_userns_clone" not in attempt(host, uid=0).reason


def test_apparmor_of_ubuntu_24_04(host: Host) -> None:
    host.put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
    finding = attempt(host, Answer(1, "", "bwrap: setting up uid map: Permission denied\n"))
    assert "corral-bwrap" in finding.reason
    assert finding.hint is not None and "corral doctor --fix" in finding.hint


def test_a_container_with_masked_proc(host: Host) -> None:
    host.put("/.dockerenv")
    host.put("/proc/self/mountinfo", "30 29 0:5 /null /proc/kcore rw - tmpfs tmpfs rw\n")
    refused = Answer(1, "", "bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n")
    finding = attempt(host, refused)
    assert "(docker)" in finding.reason and "/proc/kcore" in finding.reason
    assert finding.hint is not None and "systempaths=unconfined" in finding.hint


@pytest.mark.parametrize(
    "status", ["CapBnd:\t00000000a80425fb\nSeccomp:\t0\n", "CapBnd:\t1ffffffffff\nSeccomp:\t2\n"]
)
def test_a_container_without_the_right(host: Host, status: str) -> None:
    host.put("/proc/self/status", status)
    host.put("/run/.containerenv")
    finding = attempt(host)
    assert "(podman)" in finding.reason
    assert finding.hint is not None and "--privileged" in finding.hint


def test_selinux(host: Host) -> None:
    host.put("/sys/fs/selinux/enforce", "1")
    host.put("/proc/self/attr/current", "user_u:user_r:user_t:s0\0")
    assert "user_u:user_r:user_t:s0" in attempt(host).reason


def test_an_unknown_cause_shows_what_was_tried(host: Host) -> None:
    finding = attempt(host)
    assert "No permissions" in finding.reason
    assert finding.hint is not None and "/usr/bin/bwrap --unshare-user" in finding.hint


def test_binfmt_is_no_mask() -> None:
    assert masked_proc("1 2 0:1 / /proc/sys/fs/binfmt_misc rw - autofs x rw\nshort\n") == []
