"""From a Spec to its Plan: what this machine has, and what is in the workspace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..events import Report
from ..host import Facts, System, layout, measure
from ..host.cgroups import disk_of
from ..jail.seccomp.filters import filters
from ..jail.seccomp.target import Target
from ..jail.starting import STARTING
from ..paths import program_files
from ..plan import Plan, build
from ..search import note
from ..spec import PROTECTED, Spec, mask_matcher

# The oldest that can be a guest's: the supervisor needs cgroup.kill (5.14).
GUEST_KERNEL = (5, 14)


def host_facts(report: Report, *, assume_yes: bool = False) -> Facts:
    """What this machine has; QEMU or bubblewrap that is missing is installed, after a yes.

    Raises HostError.
    """
    found = measure()
    if found.qemu is None or found.bwrap is None:
        from ..host.provision import ensure_programs

        found = ensure_programs(found, ("qemu", "bwrap"), assume_yes=assume_yes, report=report)
    return found


def make_plan(spec: Spec, facts: Facts, environ: Mapping[str, str], *, kept: bool = False) -> Plan:
    """Survey the workspace and plan; what it may change is noted. Raises PlanError, HostError.

    kept: this sandbox has a place for its disk (`start` is given a file for it); in others, which
    end with what they wrote, machine.disk has no meaning.
    """
    if not kept:
        spec = _without_disk(spec)
    found = _survey(spec, spec.workspace.on_host)
    surveys = {
        agent.number: _survey(spec, agent.copy).workspace
        for agent in spec.agents
        if agent.copy is not None
    }
    if spec.limits.io_read or spec.limits.io_write:
        disk = disk_of(System(), spec.workspace.on_host)
        workspace = msgspec.structs.replace(found.workspace, disk=disk)
        found = msgspec.structs.replace(found, workspace=workspace)
    plan = build(spec, facts, found, environ, jail_filters(spec, facts), surveys)
    if plan.secrets:
        from .secrets import check_extra

        check_extra(plan)
    note(_changed(spec))
    return plan


def _without_disk(spec: Spec) -> Spec:
    """The spec less its disk, and what limits the use of that."""
    if not spec.machine.disk:
        return spec
    replace = msgspec.structs.replace
    agents = tuple(
        replace(agent, limits=replace(agent.limits, io_read=None, io_write=None))
        for agent in spec.agents
    )
    return replace(spec, machine=replace(spec.machine, disk=0), agents=agents)


def _changed(spec: Spec) -> list[str]:
    """Folders that will hold what the sandbox wrote; also those that get it by `corral apply`."""
    found = [share.source for share in spec.shares if share.writable]
    if not spec.workspace.read_only:
        copies = (agent.copy for agent in spec.agents if agent.copy is not None)
        found += [spec.workspace.path, spec.workspace.on_host, *copies]
    return found


def _survey(spec: Spec, folder: str) -> layout.Layout:
    return layout.survey(
        folder,
        unprotect=spec.workspace.unprotect,
        protected=PROTECTED,
        is_masked=mask_matcher(spec.workspace.mask) if spec.workspace.mask else None,
        program=program_files(),
    )


def jail_filters(spec: Spec, facts: Facts) -> tuple[bytes, ...]:
    """The seccomp programs of an agent's jail. Raises ConfigError, HostError."""
    target = Target(machine=facts.arch, kernel=GUEST_KERNEL)
    made = filters(spec.run.seccomp, spec.run.seccomp_mode, target, STARTING)
    return made.programs
