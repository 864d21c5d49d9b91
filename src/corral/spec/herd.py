"""The agents of a sandbox: from merged settings to AgentSpecs, and what a project's may not say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from msgspec import structs

from ..errors import ConfigError
from ..policy import Gateway, Network, Rule
from .herd_settings import AgentRow, words
from .layers import Entry, Merged, scalar
from .model import (
    RESTARTS,
    WORKSPACE_MODES,
    AgentSpec,
    Limits,
    Restart,
    Share,
    WorkspaceMode,
)
from .network_settings import MODES, NamedRules
from .values import EnvVar

SHARED = "/shared"
WORKSPACE = "/workspace"
"""Where each of several agents finds its workspace."""

_LIMITS = ("memory", "cpu", "pids", "io_read", "io_write")
_AMOUNTS = (*_LIMITS, "home", "tmp")
HERD_LIMITS = {f"herd.{name}": name for name in _AMOUNTS}
USUAL_PIDS = 2048
"""Processes and threads of one of several agents, where nothing was said."""

_Environment = Callable[[Sequence[Entry]], tuple[tuple[str, str], ...]]
_Tools = Callable[[Sequence[Entry]], tuple[str, ...]]


def rows_of(merged: Merged) -> tuple[AgentRow, ...]:
    """The [[agent]] tables."""
    return cast("tuple[AgentRow, ...]", scalar(merged, "agent") or ())


def count_of(merged: Merged) -> int:
    """How many agents there are: as many as was said, else as there are tables."""
    (entry,) = merged["herd.agents"]
    if entry.kind == "default":
        return max(1, len(rows_of(merged)))
    return cast("int", entry.value)


def one_agent(merged: Merged) -> Merged:
    """The same without several agents, for a sandbox that has one command."""
    return {**merged, "agent": (), "herd.agents": (Entry(1, "default", "default"),)}


def usual(name: str, memory: int | None, machine: int) -> int | None:
    """The limit of one of several agents where nothing was said, None for none. All in bytes.

    memory: its own limit, if it has one. machine: the sandbox's memory.
    """
    if name == "pids":
        return USUAL_PIDS
    memory = memory or machine // 2
    if name == "memory":
        return memory
    return memory // 2 // 4096 * 4096 if name in ("home", "tmp") else None


def limit_without(name: str, without: Merged) -> int | None:
    """What limits an agent as things are, said or not; None when nothing does."""
    said = cast("int | None", scalar(without, f"herd.{name}"))
    if said is not None or count_of(without) == 1:
        return said
    memory = cast("int | None", scalar(without, "herd.memory"))
    return usual(name, memory, cast("int", scalar(without, "machine.memory")))


def resolve_agents(
    merged: Merged,
    network: Network,
    gateways: Sequence[Gateway],
    tools: _Tools,
    environment: _Environment,
    warnings: list[str],
) -> tuple[AgentSpec, ...]:
    """The agents. tools, environment: check what a table says of them. Raises ConfigError.

    What has no effect is added to `warnings`.
    """
    count, rows = count_of(merged), rows_of(merged)
    if len(rows) > count:
        warnings.append(f"of {len(rows)} [[agent]] tables only the first {count} are used.")
    mode = cast("WorkspaceMode", scalar(merged, "herd.workspace"))
    found = []
    for number in range(1, count + 1):
        row = rows[number - 1] if number <= len(rows) else AgentRow()
        origin = merged["agent"][-1] if merged["agent"] else None
        own = row.workspace or (mode if count > 1 else "together")
        agent = AgentSpec(
            number=number,
            recipe=row.recipe,
            workspace=cast("WorkspaceMode", own),
            branch=row.branch,
            limits=Limits(**{name: _of(row, merged, name) for name in _LIMITS}),
            home=_of(row, merged, "home"),
            tmp=_of(row, merged, "tmp"),
            restart=cast("Restart", row.restart or scalar(merged, "herd.restart")),
            tools=tools(_entries(row.tools, origin)),
            env=environment(_entries(row.env, origin)),
            network=_network(row, network),
            gateways=_gateways(number, row, gateways),
        )
        if row.branch is not None and own != "own":
            warnings.append(
                f"agent {number} has no copy of its own, so its branch ({row.branch}) means "
                "nothing."
            )
        found.append(agent)
    _refuse_same_branch(found)
    return tuple(found)


def _of(row: AgentRow, merged: Merged, name: str) -> int | None:
    own = getattr(row, name)
    return cast("int | None", scalar(merged, f"herd.{name}") if own is None else own)


def _entries(items: Sequence[object], origin: Entry | None) -> list[Entry]:
    if origin is None:
        return []
    return [Entry(item, origin.kind, f"[[agent]] of {origin.origin}") for item in items]


def _network(row: AgentRow, network: Network) -> Network | None:
    if row.net is None and row.allow is None:
        return None
    allow = network.allow if row.allow is None else _rules(row.allow)
    mode = row.net or ("allow" if allow else network.mode)
    return structs.replace(network, mode=mode, allow=allow)


def _rules(named: Sequence[NamedRules]) -> tuple[Rule, ...]:
    rules = {(rule.host, rule.port): rule for each in named for rule in each.rules}
    return tuple(rules.values())


def _gateways(number: int, row: AgentRow, known: Sequence[Gateway]) -> tuple[str, ...] | None:
    if row.gateways is None:
        return None
    names = [gateway.name for gateway in known]
    for name in row.gateways:
        if name not in names:
            raise ConfigError(
                f"agent {number} is to use the gateway {name}, which the sandbox does not have.",
                hint=f"Ask for it: --gateway {name}, or network.gateways.",
            )
    return tuple(dict.fromkeys(row.gateways))


def _refuse_same_branch(agents: Sequence[AgentSpec]) -> None:
    taken: dict[str, int] = {}
    for agent in agents:
        if agent.branch is None:
            continue
        other = taken.setdefault(agent.branch, agent.number)
        if other != agent.number:
            raise ConfigError(
                f"the agents {other} and {agent.number} are both on the branch {agent.branch}.",
                hint="Give each one of its own, or none.",
            )


def shared(source: str) -> Share:
    """The folder that all agents see."""
    return Share(source=source, target=SHARED, writable=False)


# What a project's own file may not say without the user's consent


def widened(value: object, without: Merged) -> Iterator[str]:
    """What the project's [[agent]] tables allow that does not hold without them. Pure."""
    rows = cast("tuple[AgentRow, ...]", value)
    before = rows_of(without)
    if rows == before:
        return
    if before:
        yield "tables in place of yours: " + "; ".join(
            f"agent {number}: {', '.join(words(row)) or 'as the others'}"
            for number, row in enumerate(rows, 1)
        )
        return
    if without["herd.agents"][-1].kind == "default" and len(rows) > 1:
        yield f"{len(rows)} agents instead of 1"
    for number, row in enumerate(rows, 1):
        for text in _wider(row, without):
            yield f"agent {number}: {text}"


def _wider(row: AgentRow, without: Merged) -> Iterator[str]:
    """What one table allows beyond what [herd], [run] and [network] say without it."""
    said = dict(zip(_said(row), words(row), strict=True))
    for name, text in said.items():
        if not _TIGHTER[name](row, without):
            yield text


def _said(row: AgentRow) -> list[str]:
    return [n for n in AgentRow.__struct_fields__ if getattr(row, n) is not None and
            getattr(row, n) != ()]  # fmt: skip


def _lower(name: str) -> Callable[[AgentRow, Merged], bool]:
    def judge(row: AgentRow, without: Merged) -> bool:
        before = limit_without(name, without)
        return before is None or cast("int", getattr(row, name)) <= before

    return judge


def _earlier(name: str, key: str, order: Sequence[str]) -> Callable[[AgentRow, Merged], bool]:
    def judge(row: AgentRow, without: Merged) -> bool:
        return order.index(getattr(row, name)) <= order.index(str(scalar(without, key)))

    return judge


def _allowed(row: AgentRow, without: Merged) -> bool:
    known = {
        (rule.host, rule.port)
        for entry in without["network.allow"]
        if isinstance(entry.value, NamedRules)
        for rule in entry.value.rules
    }
    # Without a mode of its own, naming hosts means mode `allow`.
    none = row.net is None and scalar(without, "network.mode") == "none"
    return not none and all((r.host, r.port) in known for r in _rules(row.allow or ()))


def _same_tools(row: AgentRow, without: Merged) -> bool:
    return set(row.tools) <= {str(entry.value) for entry in without["run.tools"]}


def _same_variables(row: AgentRow, without: Merged) -> bool:
    known = [entry.value for entry in without["run.env"] if isinstance(entry.value, EnvVar)]
    return all(variable in known for variable in row.env)


_TIGHTER: Mapping[str, Callable[[AgentRow, Merged], bool]] = {
    "recipe": lambda _row, _without: False,
    "workspace": _earlier("workspace", "herd.workspace", WORKSPACE_MODES),
    "branch": lambda _row, _without: True,  # a name in a copy, checked
    "tools": _same_tools,
    "env": _same_variables,
    "net": _earlier("net", "network.mode", MODES),
    "allow": _allowed,
    "gateways": lambda _row, _without: True,  # some of those that it would have anyway
    "restart": _earlier("restart", "herd.restart", RESTARTS),
    **{name: _lower(name) for name in _AMOUNTS},
}
