"""The agents of a plan: each planned as if it was alone, from its own view of the spec. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import msgspec

from ..errors import PlanError
from ..host.facts import Facts
from ..host.layout import Layout
from ..host.layout import Workspace as Survey
from ..spec import WORKSPACE, AgentSpec, Limits, Spec
from ..spec.herd import usual
from . import guest, network, trees
from .model import Agent, Machine, mounted

_MAX_NAME = 63  # of a host (hostname(7): 64 with its end)


def view(spec: Spec, agent: AgentSpec) -> Spec:
    """The spec as it is for one agent: its workspace, its name, its environment, its network."""
    workspace, name = spec.workspace, spec.name
    if spec.several:
        suffix = f"-{agent.number}"
        name = name[: _MAX_NAME - len(suffix)] + suffix
        workspace = msgspec.structs.replace(workspace, path=WORKSPACE, copy=spec.on_host(agent))
    gateways = spec.gateways
    if agent.gateways is not None:
        gateways = tuple(each for each in gateways if each.name in agent.gateways)
    environment = dict(spec.run.env) | dict(agent.env)
    return msgspec.structs.replace(
        spec,
        name=name,
        workspace=workspace,
        run=msgspec.structs.replace(spec.run, env=tuple(environment.items())),
        network=agent.network or spec.network,
        gateways=gateways,
        agents=(agent,),
    )


def build(
    spec: Spec,
    agent: AgentSpec,
    facts: Facts,
    layout: Layout,
    environ: Mapping[str, str],
    machine: Machine,
    filters: Sequence[bytes],
) -> Agent:
    """One agent. layout: with the survey of its own workspace."""
    number, count = agent.number, len(spec.agents)
    own = view(spec, agent)
    identity = guest.Identity(own, facts)
    export = trees.agent(own, layout, number)
    environment = guest.environment(own, facts, identity, dict(environ))
    if count > 1:
        environment.append(("CORRAL_AGENT", str(number)))
    limits, home, tmp, room = _sizes(spec, agent)
    jail = guest.jail(own, layout, identity, limits=limits, home=home, tmp=tmp)
    kept = bool(spec.machine.disk)
    return Agent(
        number=number,
        export=export,
        jail={
            "number": number,
            "uid": export.uid,
            "root": identity.root,
            "inside_uid": identity.uid,
            "inside_gid": identity.gid,
            "uid_map": identity.map(number, identity.uid),
            "gid_map": identity.map(number, identity.gid),
        },
        setup={
            "number": number,
            "hostname": jail.hostname,
            "export": mounted(export.tag, machine),
            "parts": trees.writable_parts(own, layout),
            "submounts": trees.targets(export),
            "tree": jail.tree,
            "files": guest.etc_files(own, facts, identity),
            "limits": jail.limits,
            "room": room,
            "disk": kept,
            "network": network.setup(own, agents=count),
            "filters": [base64.b64encode(program).decode() for program in filters],
        },
        environment=tuple(environment),
        workdir=spec.run.workdir or own.workspace.path,
        watched=() if spec.workspace.read_only else layout.workspace.absent,
        network=agent.network,
        gateways=agent.gateways,
        restart=agent.restart,
    )


def surveyed(layout: Layout, survey: Survey | None) -> Layout:
    """The layout with an agent's own workspace, if it has one."""
    return layout if survey is None else msgspec.structs.replace(layout, workspace=survey)


def _sizes(spec: Spec, agent: AgentSpec) -> tuple[Limits, int, int, int]:
    """Limits, and the room in the home, /tmp and the system tree in bytes; 0: the kernel's default.

    Of several agents none is without: half of the machine's memory, of which half may be files in
    the home, half files in /tmp, and half what it changes in the system.
    """
    limits, home, tmp = agent.limits, agent.home, agent.tmp
    if home is not None and spec.machine.disk:
        raise PlanError(
            f"the size of agent {agent.number}'s home cannot be limited: it is on the sandbox's "
            "disk, which all share.",
            hint="Leave out herd.home (--agent-home), or the disk (--disk).",
        )
    if (limits.io_read or limits.io_write) and not spec.machine.disk:
        raise PlanError(
            f"the reads and writes of agent {agent.number} cannot be limited: the sandbox has no "
            "disk of its own, and what is shared with the host does not count as its own use.",
            hint="Give it one (corral up --disk 20g), or leave out herd.io_read and herd.io_write; "
            "limits.io_read and limits.io_write bound all of a sandbox on the host.",
        )
    if not spec.several:
        return limits, home or 0, tmp or 0, 0
    memory = usual("memory", limits.memory, spec.machine.memory)
    pids = limits.pids or usual("pids", memory, spec.machine.memory)
    room = usual("home", memory, spec.machine.memory) or 0
    limits = msgspec.structs.replace(limits, memory=memory, pids=pids)
    return limits, home or room, tmp or room, room
