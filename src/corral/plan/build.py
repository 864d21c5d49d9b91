"""Spec and host facts in, Plan out. Pure: no file is touched, no process started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..errors import PlanError
from ..host.facts import Facts
from ..host.layout import Layout
from ..host.layout import Workspace as Survey
from ..host.packages import how_to_install, missing_sentence
from ..host.programs import CHECKPOINT_QEMU, CHECKPOINT_VIRTIOFSD, Program
from ..spec import Spec
from . import agents, limits, trees
from .model import Accel, Arch, Carrier, Machine, Plan, Transport, mounted

MODULES = ("virtio_pci", "virtio_balloon", "overlay")
# The others' would only cost time: each module takes some 20 ms of an emulated boot.
CARRIER_MODULES = {
    "serial": ("virtio_console",),
    "vsock": ("virtio_console", "vmw_vsock_virtio_transport"),
}
# For a disk only. ext4 wants the checksum crc32c, in some kernels a module of its own.
DISK_MODULES = ("virtio_blk", "crc32c_generic", "ext4")
VIRTIOFS_MODULES = ("virtiofs",)
NINE_P_MODULES = ("9p", "9pnet_virtio")
# Besides one for each agent's export: the toolbox, vsock, and one to spare. Each costs some 40 ms
# of an emulated boot.
HOTPLUG_PORTS = 3


def build(
    spec: Spec,
    facts: Facts,
    layout: Layout,
    environ: Mapping[str, str],
    filters: Sequence[bytes],
    surveys: Mapping[int, Survey] = MappingProxyType({}),
) -> Plan:
    """Decide everything. filters: seccomp programs for jails, at least one.

    surveys: of the workspaces of agents that have another than the layout's, by number.

    Raises PlanError for what this host cannot give.
    """
    if spec.run.user not in (None, "root", facts.user.name):
        raise PlanError(
            f"cannot run as {spec.run.user}: "
            f"a sandbox knows only you ({facts.user.name}) and root.",
            hint="Leave --user out, or say --user root.",
        )
    machine = _machine(spec, facts)
    if spec.several:
        _refuse_several(spec, machine)
    toolbox = trees.toolbox(spec, layout)
    planned = [
        agents.build(
            spec,
            agent,
            facts,
            agents.surveyed(layout, surveys.get(agent.number)),
            environ,
            machine,
            filters,
        )
        for agent in spec.agents
    ]
    files = NINE_P_MODULES if machine.transport == "9p" else VIRTIOFS_MODULES
    return Plan(
        name=spec.name,
        machine=machine,
        modules=(*MODULES, *CARRIER_MODULES[machine.carrier], *files),
        later_modules=DISK_MODULES,
        toolbox=toolbox,
        agents=tuple(planned),
        setup={"hostname": spec.name, "toolbox": mounted(toolbox.tag, machine)},
        kernel=spec.machine.kernel,
        notes=spec.warnings,
        disk=_disk(spec, facts),
        debug_shell=_debug_shell(spec),
        limits=limits.build(spec.limits, facts.cgroups, layout.workspace.disk),
        network=spec.network,
        gateways=spec.gateways,
        secrets=spec.secrets,
    )


def _machine(spec: Spec, facts: Facts) -> Machine:
    wanted = spec.machine
    if wanted.cpus > facts.cpus:
        raise PlanError(
            f"{wanted.cpus} CPUs are asked for, this machine has {facts.cpus}.",
            hint=f"Ask for at most {facts.cpus} (--cpus, or machine.cpus).",
        )
    if wanted.memory > facts.memory:
        raise PlanError(
            f"{wanted.memory >> 20} MiB of memory are asked for, this machine has "
            f"{facts.memory >> 20} MiB.",
            hint="Ask for less (--memory, or machine.memory).",
        )
    return Machine(
        arch=_arch(facts),
        accel=_accel(spec, facts),
        cpus=wanted.cpus,
        memory=wanted.memory,
        carrier=_carrier(spec),
        transport=_transport(spec, facts),
        ports=HOTPLUG_PORTS + len(spec.agents),
        p9_cache=wanted.p9_cache,
        p9_msize=wanted.p9_msize,
        cold=wanted.cold,
        checkpoints=_checkpoints(spec, facts),
    )


def _refuse_several(spec: Spec, machine: Machine) -> None:
    """What cannot be with several agents. Raises PlanError."""
    if machine.transport == "9p":
        raise PlanError(
            f"{len(spec.agents)} agents need virtiofs: with 9p one process serves the files of all "
            "of them, under one id.",
            hint="Leave --filesystem out and install virtiofsd (corral doctor), or have one agent.",
        )
    if machine.checkpoints:
        raise PlanError(
            "a sandbox with several agents cannot be checkpointed or forked: a copy would share "
            "the agents' workspaces with it.",
            hint="Leave checkpoints out (machine.checkpoints), or have one agent in each sandbox "
            "and fork that.",
        )


def _disk(spec: Spec, facts: Facts) -> int:
    if spec.machine.disk and facts.mke2fs is None:
        raise PlanError(
            f"a disk (--disk) cannot be made: {missing_sentence(('mke2fs',))}",
            hint=how_to_install(("mke2fs",), facts.os_release, facts.arch),
        )
    return spec.machine.disk


def _arch(facts: Facts) -> Arch:
    match facts.arch:
        case "x86_64" | "aarch64":
            return facts.arch
    raise PlanError(
        f"corral has no machine for {facts.arch}.",
        hint="It runs on x86_64; aarch64 is written and unproven.",
    )


def _accel(spec: Spec, facts: Facts) -> Accel:
    works = facts.kvm.state == "works"
    if spec.machine.accel == "kvm" and not works:
        raise PlanError(
            f"KVM is asked for and cannot be used: {facts.kvm.reason}",
            hint="Leave --accel out: without KVM the sandbox is emulated, as safe and slower.",
        )
    return "kvm" if works and spec.machine.accel != "tcg" else "tcg"


def _carrier(spec: Spec) -> Carrier:
    return "vsock" if spec.machine.carrier == "vsock" else "serial"


def _debug_shell(spec: Spec) -> bool:
    if spec.machine.debug_shell and _carrier(spec) != "vsock":
        raise PlanError(
            "debug shells (--debug-shell) are reached over vsock, which this machine would not "
            "have.",
            hint="Add --carrier vsock, or leave --debug-shell out (machine.debug_shell).",
        )
    return spec.machine.debug_shell


def _transport(spec: Spec, facts: Facts) -> Transport:
    if spec.machine.filesystem != "auto":
        return spec.machine.filesystem
    if spec.machine.checkpoints:
        return "virtiofs"
    # Without any virtiofsd for this user, and no way to get one, 9p, which QEMU serves itself.
    return "virtiofs" if facts.own_virtiofsd or facts.can_fetch else "9p"


def _checkpoints(spec: Spec, facts: Facts) -> bool:
    """Whether it can be checkpointed. Raises PlanError when that is asked for and cannot be.

    virtiofs passes on what it knows (open files, folders); 9p and vsock devices do not.
    """
    if not spec.machine.checkpoints:
        return False
    for value, name in ((spec.machine.carrier, "vsock"), (spec.machine.filesystem, "9p")):
        if value == name:
            raise PlanError(
                f"checkpoints are asked for, and a machine with {name} cannot be saved.",
                hint=f"Leave {name} out, or checkpoints (machine.checkpoints).",
            )
    lacking = [
        f"{name} {'.'.join(map(str, needed))} or later (this machine has {had or 'none'})"
        for name, needed, had, usable in (
            ("QEMU", CHECKPOINT_QEMU, _version(facts.qemu), facts.checkpoint_qemu),
            (
                "Rust's virtiofsd",
                CHECKPOINT_VIRTIOFSD,
                _version(facts.virtiofsd.program) if facts.virtiofsd else "",
                facts.checkpoint_virtiofsd,
            ),
        )
        if usable is None
    ]
    if lacking and not facts.can_fetch:
        raise PlanError(
            f"checkpoints need {' and '.join(lacking)}.",
            hint="A newer release of your distribution has them, as Debian 13 does; on Debian 12 "
            "corral fetches them. Or leave checkpoints out (machine.checkpoints).",
        )
    return True


def _version(program: Program | None) -> str:
    return program.version if program else ""
