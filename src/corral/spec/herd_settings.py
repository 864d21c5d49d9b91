"""The settings of several agents: [herd] for all of them, [[agent]] for one each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from ..errors import ConfigError
from .model import MAX_AGENTS, RESTARTS, WORKSPACE_MODES
from .network_settings import MODES, NamedRules, parse_gateway, parse_rules
from .setting import Setting
from .sizes import GIB, KIB, MIB, TIB, parse_amount, parse_count, parse_percent, parse_rate
from .text import printable
from .values import (
    NAME_PATTERN,
    Base,
    EnvVar,
    choice,
    expand,
    matching,
    parse_env,
    show_percent,
    show_rate,
    show_size,
    variable,
)

MIN_MEMORY = 32 * MIB  # an interpreter of some kind
MIN_ROOM = 64 * KIB
MIN_PIDS, MAX_PIDS = 16, 1 << 22  # the jail itself has three
# git-check-ref-format(1), without what needs quotes somewhere.
BRANCH = re.compile(
    r"(?!.*(?:\.\.|//|\.lock(?:/|$)|/\.|\.(?:/|$)|/$))[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}"
)


class AgentRow(Struct, frozen=True, kw_only=True):
    """An [[agent]] table as it was written; None: as [herd] says, or as the sandbox has it."""

    recipe: str | None = None
    workspace: str | None = None
    branch: str | None = None
    tools: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    net: str | None = None
    allow: tuple[NamedRules, ...] | None = None
    gateways: tuple[str, ...] | None = None
    memory: int | None = None
    cpu: int | None = None
    pids: int | None = None
    io_read: int | None = None
    io_write: int | None = None
    home: int | None = None
    tmp: int | None = None
    restart: str | None = None


def parse_memory(value: object) -> int:
    """Bytes of an agent's memory in the guest."""
    return parse_amount(value, MIN_MEMORY, 1024 * GIB, example="1GiB")


def parse_room(value: object) -> int:
    """Bytes that may be kept in a folder, whole pages of them."""
    return parse_amount(value, MIN_ROOM, TIB, example="1GiB") // 4096 * 4096


def parse_pids(value: object) -> int:
    """Processes and threads of an agent in the guest."""
    return parse_count(value, MIN_PIDS, MAX_PIDS, "a number of processes", "500")


def parse_agents(value: object, _base: Base) -> object:
    """How many agents."""
    return parse_count(value, 1, MAX_AGENTS, "a number of agents", "4")


_ROW: dict[str, Callable[[object, Base], object]] = {
    "recipe": matching(NAME_PATTERN, "the name of a recipe"),
    "workspace": choice(WORKSPACE_MODES),
    "branch": matching(BRANCH, "a name for a branch"),
    "net": choice(MODES),
    "memory": lambda value, _base: parse_memory(value),
    "cpu": lambda value, _base: parse_percent(value),
    "pids": lambda value, _base: parse_pids(value),
    "io_read": lambda value, _base: parse_rate(value),
    "io_write": lambda value, _base: parse_rate(value),
    "home": lambda value, _base: parse_room(value),
    "tmp": lambda value, _base: parse_room(value),
    "restart": choice(RESTARTS),
}
_ROW_LISTS: dict[str, Callable[[object, Base], object]] = {
    "tools": expand,
    "allow": parse_rules,
    "gateways": parse_gateway,
}


def parse_rows(value: object, base: Base) -> object:
    """The rows of [[agent]], from a list of tables."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError("[[agent]] is a list of tables.", hint="Write [[agent]], one for each.")
    if len(value) > MAX_AGENTS:
        raise ConfigError(f"there are {len(value)} agents; at most {MAX_AGENTS} are possible.")
    return tuple(_row(number, row, base) for number, row in enumerate(value, 1))


def _row(number: int, row: object, base: Base) -> AgentRow:
    if not isinstance(row, Mapping):
        raise ConfigError(f"agent {number} is not a table.")
    found: dict[str, Any] = {}
    for name, content in row.items():
        try:
            if name == "env" and isinstance(content, Mapping):
                found[name] = tuple(variable(key, text) for key, text in content.items())
            elif name == "env" and isinstance(content, (list, tuple)):
                found[name] = tuple(parse_env(item, base) for item in content)
            elif name in _ROW_LISTS and isinstance(content, (list, tuple)):
                found[name] = tuple(_ROW_LISTS[name](item, base) for item in content)
            elif name in _ROW:
                found[name] = _ROW[name](content, base)
            else:
                raise ConfigError(
                    f"{printable(str(name), 60)} is not a key of an agent, or not of that type.",
                    hint=f"Known here: {', '.join(AgentRow.__struct_fields__)}.",
                )
        except ConfigError as error:
            raise ConfigError(f"agent {number}: {error.message}", hint=error.hint) from error
    return AgentRow(**found)


def show_rows(value: object) -> str:
    """The rows in a line, values of variables left out."""
    rows = value if isinstance(value, tuple) else ()
    return "; ".join(
        f"{number}: {', '.join(words(row)) or 'as the others'}"
        for number, row in enumerate(rows, 1)
        if isinstance(row, AgentRow)
    )


def words(row: AgentRow) -> list[str]:
    """What a row says, `key=value` each."""
    found = []
    for name in AgentRow.__struct_fields__:
        value = getattr(row, name)
        if value is None or value == ():
            continue
        found.append(f"{name}={_shown(name, value)}")
    return found


def _shown(name: str, value: object) -> str:
    if isinstance(value, tuple):
        texts = [
            item.name
            if isinstance(item, EnvVar)
            else item.text
            if isinstance(item, NamedRules)
            else str(item)
            for item in value
        ]
        return printable(" ".join(texts), 1000)
    if name in ("memory", "home", "tmp"):
        return show_size(value)
    if name in ("io_read", "io_write"):
        return show_rate(value)
    return show_percent(value) if name == "cpu" else printable(str(value), 300)


HERD_SETTINGS = (
    Setting(
        key="herd.agents",
        option="--agents",
        variable="CORRAL_AGENTS",
        meaning=f"how many agents, 1 to {MAX_AGENTS}",
        parse=parse_agents,
        default=1,
        tighter="lower",
    ),
    Setting(
        key="herd.workspace",
        option="--agent-workspace",
        variable="CORRAL_AGENT_WORKSPACE",
        meaning="of several agents: own (a copy each), together or turns (one at a time)",
        parse=choice(WORKSPACE_MODES),
        default="own",
        tighter="order",
        order=WORKSPACE_MODES,
    ),
    Setting(
        key="herd.shared",
        option="--shared",
        variable="CORRAL_SHARED",
        meaning="a folder that all see at /shared, read-only",
        parse=expand,
        asks=lambda value: f"read-only access to {value}",
    ),
    Setting(
        key="herd.memory",
        option="--agent-memory",
        variable="CORRAL_AGENT_MEMORY",
        meaning="the most memory of one agent in the sandbox",
        parse=lambda value, _base: parse_memory(value),
        tighter="lower",
        show=show_size,
    ),
    Setting(
        key="herd.cpu",
        option="--agent-cpu",
        variable="CORRAL_AGENT_CPU",
        meaning="the most processor time of one agent, as 150%",
        parse=lambda value, _base: parse_percent(value),
        tighter="lower",
        show=show_percent,
    ),
    Setting(
        key="herd.pids",
        option="--agent-pids",
        variable="CORRAL_AGENT_PIDS",
        meaning="the most processes and threads of one agent",
        parse=lambda value, _base: parse_pids(value),
        tighter="lower",
    ),
    Setting(
        key="herd.io_read",
        option="--agent-io-read",
        variable="CORRAL_AGENT_IO_READ",
        meaning="bytes a second that one agent reads from the sandbox's disk",
        parse=lambda value, _base: parse_rate(value),
        tighter="lower",
        show=show_rate,
    ),
    Setting(
        key="herd.io_write",
        option="--agent-io-write",
        variable="CORRAL_AGENT_IO_WRITE",
        meaning="bytes a second that one agent writes to the sandbox's disk",
        parse=lambda value, _base: parse_rate(value),
        tighter="lower",
        show=show_rate,
    ),
    Setting(
        key="herd.home",
        option="--agent-home",
        variable="CORRAL_AGENT_HOME",
        meaning="the most that one agent may keep in its home",
        parse=lambda value, _base: parse_room(value),
        tighter="lower",
        show=show_size,
    ),
    Setting(
        key="herd.tmp",
        option="--agent-tmp",
        variable="CORRAL_AGENT_TMP",
        meaning="the most that one agent may keep in /tmp",
        parse=lambda value, _base: parse_room(value),
        tighter="lower",
        show=show_size,
    ),
    Setting(
        key="herd.restart",
        option="--agent-restart",
        variable="CORRAL_AGENT_RESTART",
        meaning="when an agent's jail that ended is made again: never, on-failure or always",
        parse=choice(RESTARTS),
        default="never",
        tighter="order",
        order=RESTARTS,
    ),
    Setting(
        key="agent",
        option="--config",
        variable="",
        meaning="one table for each agent, for what it has of its own",
        parse=parse_rows,
        show=show_rows,
    ),
)
