"""The recipes of a sandbox's agents: what [[agent]] recipe = "claude" gives agent after agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from msgspec import structs

from ..events import Report
from ..policy import Network, Rule
from ..spec import AgentSpec, Extra, Loaded, Share, Spec, collect, load_spec, refuse_untrusted
from ..spec.herd import count_of, rows_of
from ..spec.network_settings import NamedRules, parse_rules
from ..spec.values import Base
from . import find
from .preparing import prepare
from .using import Use


def load_with_recipes(
    cwd: Path,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    report: Report,
    *,
    config_file: Path | None = None,
    force: bool = False,
    capacity: tuple[int, int] | None = None,
) -> Spec:
    """As load_spec, with what the recipes of its agents add.

    Their programs are installed and their homes made. Raises what load_spec and `prepare` do.
    """
    loaded = collect(cwd, overrides, environ, config_file=config_file, capacity=capacity)
    refuse_untrusted(loaded)
    rows = rows_of(loaded.merged)
    uses = {
        number: prepare(
            *(find(name), loaded, environ, report),
            number=number,
            gateways=rows[number - 1].gateways,
        )
        for number, name in named(loaded).items()
    }
    extra = shared(uses) if uses else None
    spec = load_spec(
        *(cwd, overrides, environ),
        config_file=config_file,
        force=force,
        capacity=capacity,
        extra=extra,
    )
    agents = tuple(
        given(agent, uses[agent.number], spec, loaded) if agent.number in uses else agent
        for agent in spec.agents
    )
    return structs.replace(spec, agents=agents)


def named(loaded: Loaded) -> dict[int, str]:
    """The recipes that are asked for, by agent."""
    rows = rows_of(loaded.merged)[: count_of(loaded.merged)]
    return {number: row.recipe for number, row in enumerate(rows, 1) if row.recipe is not None}


def shared(uses: Mapping[int, Use]) -> Extra:
    """What the sandbox needs for all of them: gateways and secrets."""
    gateways = dict.fromkeys(name for use in uses.values() for name in use.gateways)
    secrets = dict.fromkeys(name for use in uses.values() for name in use.secrets)
    extras = [use.extra() for use in uses.values()]
    return Extra(
        origin="the agents' recipes",
        values={"network.gateways": list(gateways), "network.secrets": list(secrets)},
        gateways={name: each for extra in extras for name, each in extra.gateways.items()},
        secrets={name: each for extra in extras for name, each in extra.secrets.items()},
    )


def given(agent: AgentSpec, use: Use, spec: Spec, loaded: Loaded) -> AgentSpec:
    """An agent with what its recipe adds, below what the user says of it and of all. Pure."""
    said = {name for name, _value in (*spec.run.env, *agent.env)}
    env = tuple(each for each in use.env if each[0] not in said)
    tools = [tool for tool in use.tools if tool not in (*spec.run.tools, *agent.tools)]
    shares = tuple(Share(source=s, target=t, writable=True) for s, t in use.shares)
    gateways = agent.gateways
    if gateways is None and use.reached is not None:
        # First its own: programs that look for a model find that. And what all were given.
        asked = [str(entry.value) for entry in loaded.merged["network.gateways"]]
        gateways = tuple(dict.fromkeys((use.reached.name, *asked)))
    return structs.replace(
        agent,
        shares=(*agent.shares, *shares),
        env=(*env, *agent.env),
        tools=(*agent.tools, *tools),
        gateways=gateways,
        network=_network(agent.network, spec.network, use, loaded),
    )


def _network(own: Network | None, of_all: Network, use: Use, loaded: Loaded) -> Network | None:
    """With the recipe's hosts, but where the user has said that there is no network."""
    network = own or of_all
    closed = network.mode == "none" and (
        own is not None or loaded.merged["network.mode"][-1].kind != "default"
    )
    if not use.allow or closed or network.mode == "internet":
        return own
    rules: dict[tuple[str, int | None], Rule] = {(r.host, r.port): r for r in network.allow}
    for text in use.allow:
        for rule in cast("NamedRules", parse_rules(text, Base("/", "/", "/"))).rules:
            rules.setdefault((rule.host, rule.port), rule)
    return structs.replace(network, mode="allow", allow=tuple(rules.values()))
