"""Limits on the host as values: what is written to control groups, what systemd is told. Pure."""

from __future__ import annotations

from ..errors import PlanError
from ..host.cgroups import Cgroups
from ..spec import Limits
from .model import HostLimits

_PERIOD = 100_000  # microseconds: the kernel's own default for cpu.max
_MOUNTED = {
    "v1": "this host uses cgroup v1",
    "hybrid": "this host has its controllers in cgroup v1 (systemd's hybrid mode)",
    "none": "there is no cgroup file system",
}
_V2_HINT = (
    "Boot with systemd.unified_cgroup_hierarchy=1, or run corral where cgroup v2 is; "
    "or leave the limits out."
)


def build(wanted: Limits, groups: Cgroups, disk: str | None) -> HostLimits | None:
    """How the limits are enforced here; None when there are none.

    disk: the workspace's, as "259:0". Raises PlanError for what cannot be enforced.
    """
    if not wanted.any:
        return None
    if groups.mounted != "v2":
        raise PlanError(
            f"limits ({_named(wanted)}) cannot be enforced: {_MOUNTED[groups.mounted]}, "
            "and corral needs cgroup v2.",
            hint=_V2_HINT,
        )
    if (wanted.io_read or wanted.io_write) and disk is None:
        raise PlanError(
            "a limit of reads or writes cannot be enforced: the workspace's file system has no "
            "disk of its own that the kernel knows (as btrfs, overlay and network ones).",
            hint="Use limits.io_weight, or leave it out.",
        )
    needed = controllers(wanted)
    if groups.base is not None and needed <= set(groups.controllers):
        return HostLimits(
            way="subtree",
            base=groups.base,
            controllers=tuple(sorted(needed)),
            files=files(wanted, disk),
        )
    if groups.manager and groups.systemd_run and needed <= set(groups.offers):
        return HostLimits(
            way="scope",
            base=groups.systemd_run,
            manager=groups.manager,
            properties=properties(wanted, f"/dev/block/{disk}" if disk else None),
        )
    raise _refused(wanted, groups, needed)


def _refused(wanted: Limits, groups: Cgroups, needed: set[str]) -> PlanError:
    best = groups.offers if groups.manager else groups.controllers
    lacking = ", ".join(sorted(needed - set(best)))
    message = f"limits ({_named(wanted)}) cannot be enforced: "
    if groups.manager == "user" and groups.systemd_run and lacking:
        return PlanError(
            f"{message}your systemd may not hand out the controllers {lacking}.",
            hint="As root: `systemctl edit user@.service`, with [Service] and "
            "Delegate=cpu cpuset io memory pids; then log in again.",
        )
    if groups.base is not None and lacking:
        return PlanError(
            f"{message}the control group of this process does not have {lacking} to give, or "
            "other processes are in it.",
            hint="Run corral in a group of its own: a unit with Delegate=yes (`corral unit`).",
        )
    return PlanError(
        f"{message}no systemd runs for you, and this process's control group is not yours.",
        hint="Log in so that systemd runs for you (`loginctl enable-linger`), run corral in a unit "
        "with Delegate=yes (`corral unit`), or leave the limits out.",
    )


def _named(wanted: Limits) -> str:
    return ", ".join(name for name in wanted.__struct_fields__ if getattr(wanted, name) is not None)


def controllers(wanted: Limits) -> set[str]:
    """The controllers that these limits need."""
    named = {name.partition("_")[0] for name in wanted.__struct_fields__ if getattr(wanted, name)}
    return named


def files(wanted: Limits, disk: str | None) -> tuple[tuple[str, str], ...]:
    """(file, text) in a control group (cgroup-v2.rst). disk: as "259:0"."""
    found: list[tuple[str, str]] = []
    if wanted.memory:
        # Beyond it nothing goes to the host's swap. All or nothing ends: half a sandbox is none.
        found += [("memory.max", str(wanted.memory)), ("memory.swap.max", "0")]
        found.append(("memory.oom.group", "1"))
    if wanted.cpu:
        found.append(("cpu.max", f"{wanted.cpu * _PERIOD // 100} {_PERIOD}"))
    if wanted.pids:
        found.append(("pids.max", str(wanted.pids)))
    if wanted.io_weight:
        found.append(("io.weight", f"default {wanted.io_weight}"))
    if wanted.io_read or wanted.io_write:
        rates = (("rbps", wanted.io_read), ("wbps", wanted.io_write))
        found.append(("io.max", " ".join([disk or "", *(f"{k}={v}" for k, v in rates if v)])))
    return tuple(found)


def properties(wanted: Limits, disk: str | None) -> tuple[str, ...]:
    """The same as properties of a systemd unit (systemd.resource-control(5)).

    disk: a path on the disk, without spaces and specifiers.
    """
    found = []
    if wanted.memory:
        found += [f"MemoryMax={wanted.memory}", "MemorySwapMax=0"]
    if wanted.cpu:
        found.append(f"CPUQuota={wanted.cpu}%")
    if wanted.pids:
        found.append(f"TasksMax={wanted.pids}")
    if wanted.io_weight:
        found.append(f"IOWeight={wanted.io_weight}")
    if wanted.io_read:
        found.append(f"IOReadBandwidthMax={disk} {wanted.io_read}")
    if wanted.io_write:
        found.append(f"IOWriteBandwidthMax={disk} {wanted.io_write}")
    return tuple(found)


def scope(limits: HostLimits, unit: str, description: str) -> tuple[str, ...]:
    """The command line before one that is to run in a scope of its own, with these limits.

    systemd-run registers itself and then becomes that command.
    """
    assert limits.manager is not None
    argv = [limits.base, f"--{limits.manager}", "--scope", "--quiet", "--collect"]
    argv += [f"--unit={unit}", f"--description={description}"]
    for text in limits.properties:
        argv += ["-p", text]
    return (*argv, "--")
