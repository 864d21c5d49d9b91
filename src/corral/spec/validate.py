"""From merged values to a Spec: each means something, and all of them fit together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import cast

from ..errors import ConfigError
from .actions import MAX_ACTIONS
from .credentials import credential_warning
from .gateways import Doors
from .herd import count_of, resolve_agents, rows_of
from .keys import Reach
from .layers import Entry, Merged, scalar
from .masks import matcher
from .model import (
    PROTECTED,
    Accel,
    Action,
    Carrier,
    Filesystem,
    Image,
    Limits,
    Machine,
    P9Cache,
    Run,
    SeccompMode,
    Spec,
    Workspace,
)
from .network import ports_taken, refuse_both, resolve_gateways, resolve_network, resolve_secrets
from .places import (
    Place,
    beneath,
    check_workspace,
    protect_own_files,
    protect_program,
    protected,
    real_path,
    refuse_overlaps,
    resolve_shares,
    resolve_tools,
    sensitive,
    shared_entries,
)
from .sizes import format_size
from .text import printable
from .values import EnvVar

_HELPERS_MEMORY = 256 << 20  # bytes: QEMU and the file servers beside the guest, rounded up


def resolve(
    merged: Merged, place: Place, environ: Mapping[str, str], doors: Doors, *, force: bool
) -> Spec:
    """The Spec of `merged`; ConfigError for anything that cannot be meant.

    doors: the gateways and secrets of the user's own file.
    force: allow a workspace or share that is /, the home, a system folder, or that holds
    corral's own files.
    """
    warnings: list[str] = []
    check_workspace(place, force=force)
    named = (*merged["share"], *shared_entries(merged))
    shares = resolve_shares(named, place, force=force)
    tools = resolve_tools(merged["run.tools"], place)
    refuse_overlaps(place, named, shares, tools, several=count_of(merged) > 1)
    workspace = _workspace(merged, place)
    writable = [share.source for share in shares if share.writable]
    if not workspace.read_only:
        writable.append(workspace.path)
    protect_own_files(writable, force=force)
    protect_program(writable, place.workspace, force=force)
    warnings += sensitive(shares, place)
    warnings += _useless(workspace, place)
    env = _environment(merged["run.env"], environ, warnings)
    network = resolve_network(merged, warnings)
    reach = Reach(
        workspace=place.workspace,
        masked=matcher(workspace.mask),
        readable=(
            *(place.workspace, *(share.source for share in shares), *tools),
            *(tool for row in rows_of(merged) for tool in row.tools),
        ),
        writable=tuple(writable),
    )
    gateways = resolve_gateways(merged, doors, environ, reach, warnings)
    secrets = resolve_secrets(merged, doors, environ, reach)
    agents = resolve_agents(
        merged,
        network,
        gateways,
        lambda entries: resolve_tools(entries, place),
        lambda entries: _environment(entries, environ, warnings),
        warnings,
    )
    for agent in agents:
        refuse_overlaps(place, named, shares, agent.tools, several=len(agents) > 1)
    variables = [name for each in (env, *(agent.env for agent in agents)) for name, _value in each]
    refuse_both(variables, gateways, secrets)
    warnings += ports_taken(network, gateways, secrets)
    run = _run(merged, env, tools)
    if any(beneath(run.seccomp, folder) for folder in writable):
        warnings.append(
            f"the seccomp profile {run.seccomp} is in a folder that the sandbox can change: "
            "the next start would keep to what it wrote there."
        )
    machine, limits = _machine(merged, place), _limits(merged)
    warnings += _tight(machine, limits)
    return Spec(
        machine=machine,
        workspace=workspace,
        shares=tuple(shares),
        run=run,
        agents=agents,
        limits=limits,
        network=network,
        gateways=gateways,
        secrets=secrets,
        actions=_actions(merged["actions"]),
        name=cast("str | None", scalar(merged, "name")) or default_name(place.workspace),
        warnings=tuple(warnings),
    )


def default_name(workspace: str) -> str:
    """A sandbox's name from its workspace's: `/src/My App` gives `my-app`."""
    base = re.sub(r"[^a-z0-9]+", "-", os.path.basename(workspace).lower())  # noqa: PTH119
    return base.strip("-")[:63].rstrip("-") or "sandbox"


def _workspace(merged: Merged, place: Place) -> Workspace:
    return Workspace(
        path=place.workspace,
        read_only=bool(scalar(merged, "workspace.read_only")),
        review=bool(scalar(merged, "workspace.review")),
        mask=tuple(str(entry.value) for entry in merged["workspace.mask"]),
        unprotect=tuple(str(entry.value) for entry in merged["workspace.unprotect"]),
    )


def _useless(workspace: Workspace, place: Place) -> list[str]:
    """What to say of paths in `unprotect` that are not protected."""
    return [
        f"unprotect {printable(path)} changes nothing: only {', '.join(PROTECTED)} are protected."
        for path in workspace.unprotect
        if not any(beneath(path, known) or beneath(known, path) for known in protected(place))
    ]


def _run(merged: Merged, env: tuple[tuple[str, str], ...], tools: tuple[str, ...]) -> Run:
    return Run(
        user=cast("str | None", scalar(merged, "run.user")),
        workdir=cast("str | None", scalar(merged, "run.workdir")),
        env=env,
        timeout=cast("float | None", scalar(merged, "run.timeout")),
        tools=tools,
        image=cast("Image", scalar(merged, "run.image")),
        seccomp=cast("str", scalar(merged, "run.seccomp")),
        seccomp_mode=cast("SeccompMode", scalar(merged, "run.seccomp_mode")),
    )


def _machine(merged: Merged, place: Place) -> Machine:
    kernel = None
    if entries := merged["machine.kernel"]:
        entry = entries[-1]
        kernel = real_path(str(entry.value), "the kernel", entry, place)
        if not os.path.isfile(kernel) or not os.access(kernel, os.R_OK):  # noqa: PTH113
            raise ConfigError(
                f"the kernel {printable(kernel)} (from {entry.origin}) is not a file that you "
                "can read."
            )
    return Machine(
        cpus=cast("int", scalar(merged, "machine.cpus")),
        memory=cast("int", scalar(merged, "machine.memory")),
        accel=cast("Accel", scalar(merged, "machine.accel")),
        carrier=cast("Carrier", scalar(merged, "machine.carrier")),
        filesystem=cast("Filesystem", scalar(merged, "machine.filesystem")),
        kernel=kernel,
        p9_cache=cast("P9Cache", scalar(merged, "machine.p9_cache")),
        p9_msize=cast("int", scalar(merged, "machine.p9_msize")),
        cold=bool(scalar(merged, "machine.cold")),
        checkpoints=bool(scalar(merged, "machine.checkpoints")),
        debug_shell=bool(scalar(merged, "machine.debug_shell")),
        disk=cast("int", scalar(merged, "machine.disk")),
    )


def _tight(machine: Machine, limits: Limits) -> list[str]:
    """What to say when the whole guest does not fit into its limit."""
    if limits.memory is None or limits.memory >= machine.memory + _HELPERS_MEMORY:
        return []
    return [
        f"limits.memory ({format_size(limits.memory)}) leaves little room above machine.memory "
        f"({format_size(machine.memory)}): a guest that uses all of its memory is ended."
    ]


def _limits(merged: Merged) -> Limits:
    return Limits(
        **{
            name: cast("int | None", scalar(merged, f"limits.{name}"))
            for name in Limits.__struct_fields__
        }
    )


def _actions(entries: Sequence[Entry]) -> tuple[Action, ...]:
    """By name, the last of each: options may say one twice."""
    found = {each.name: each for each in (cast("Action", entry.value) for entry in entries)}
    if len(found) > MAX_ACTIONS:
        raise ConfigError(
            f"there are {len(found)} actions; at most {MAX_ACTIONS} are possible.",
            hint="Leave some out, or give one of them arguments: a task may add some.",
        )
    return tuple(found.values())


def _environment(
    entries: Sequence[Entry], environ: Mapping[str, str], warnings: list[str]
) -> tuple[tuple[str, str], ...]:
    values: dict[str, str] = {}
    for entry in entries:
        variable = cast("EnvVar", entry.value)
        value = variable.value
        if value is None:
            value = environ.get(variable.name)
            if value is None:
                raise ConfigError(
                    f"{variable.name} (from {entry.origin}) is to be taken from your "
                    "environment, and is not set there.",
                    hint=f"Set it, or give a value: {variable.name}=VALUE.",
                )
        values.pop(variable.name, None)
        values[variable.name] = value
        if (
            warning := credential_warning(variable.name, value, f" (from {entry.origin})")
        ) is not None:
            warnings.append(warning)
    return tuple(values.items())
