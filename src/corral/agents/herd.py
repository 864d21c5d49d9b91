"""The recipes of a sandbox's agents: what [[agent]] recipe = "claude" gives agent after agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from msgspec import structs

from ..errors import ConfigError
from ..events import Event, Notice, Report
from ..policy import Network, Rule
from ..spec import (
    WORKSPACE,
    AgentSpec,
    Extra,
    Loaded,
    Share,
    Spec,
    collect,
    load_spec,
    refuse_untrusted,
)
from ..spec.herd import count_of, rows_of
from ..spec.network_settings import NamedRules, parse_rules
from ..spec.values import Base
from . import find
from .model import Recipe
from .preparing import prepare
from .using import Use, Way, reach


def load_with_recipes(
    cwd: Path,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    report: Report,
    *,
    config_file: Path | None = None,
    force: bool = False,
    capacity: tuple[int, int] | None = None,
    share_auth: bool = False,
    import_settings: bool = False,
) -> Spec:
    """As load_spec, with what the recipes of its agents add.

    Their programs are installed and their homes made. share_auth: those whose recipes can use the
    login of the user's subscription do. import_settings: the user's own go into each home. Raises
    what load_spec, `reach` and `prepare` do.
    """
    loaded = collect(cwd, overrides, environ, config_file=config_file, capacity=capacity)
    refuse_untrusted(loaded)
    recipes = {number: find(name) for number, name in named(loaded).items()}
    if (share_auth or import_settings) and not recipes:
        raise ConfigError(
            "no agent of this sandbox has a recipe: --import-settings and --share-auth are for "
            "those that have one.",
            hint='Name it in corral.toml or your config.toml: [[agent]] recipe = "claude".',
        )
    ways = ways_of(recipes, loaded, environ, share_auth=share_auth)  # before all else
    several = count_of(loaded.merged) > 1
    uses = {
        number: prepare(
            *(recipe, loaded, environ, _telling(number, report) if several else report),
            ways[number],
            number=number,
            import_settings=import_settings,
            inside=WORKSPACE if several else None,
        )
        for number, recipe in recipes.items()
    }
    extra = shared(uses) if uses else None
    spec = load_spec(
        *(cwd, overrides, environ),
        config_file=config_file,
        force=force,
        capacity=capacity,
        extra=extra,
    )
    if not uses:
        return spec
    agents = []
    for agent in spec.agents:
        if agent.number in uses:
            agent = given(agent, uses[agent.number], spec, loaded)
        names = gateways_of(agent.number, loaded, ways)
        agents.append(structs.replace(agent, gateways=names))
    return structs.replace(spec, agents=tuple(agents))


def ways_of(
    recipes: Mapping[int, Recipe],
    loaded: Loaded,
    environ: Mapping[str, str],
    *,
    share_auth: bool = False,
) -> dict[int, Way]:
    """The way of each agent with a recipe to its model. Raises ConfigError.

    share_auth: the login of the user's subscription, for those whose recipes can use it; an agent
    that is not one of these may not come to use it by the same gateway.
    """
    able = {number for number, recipe in recipes.items() if recipe.table.share_auth}
    sharing = (able or set(recipes)) if share_auth else set()
    rows = rows_of(loaded.merged)
    ways = {
        number: reach(
            *(recipe, loaded, environ),
            share_auth=number in sharing,
            only=rows[number - 1].gateways,
        )
        for number, recipe in recipes.items()
    }
    logins = {name for number in sharing for name in ways[number][2]}
    for number in range(1, count_of(loaded.merged) + 1):
        both = [name for name in gateways_of(number, loaded, ways) if name in logins]
        if both and number not in sharing:
            raise ConfigError(
                f"agent {number} would use the gateway {both[0]}, and with it your subscription's "
                "login, which is for Claude Code.",
                hint="Give it another one (gateways of its [[agent]] table), or leave out "
                "--share-auth.",
            )
    return ways


def gateways_of(number: int, loaded: Loaded, ways: Mapping[int, Way]) -> tuple[str, ...]:
    """The gateways that an agent may use: those its table says, else its recipe's and what all
    were given. First its own: programs that look for a model find that.
    """
    rows = rows_of(loaded.merged)
    said = rows[number - 1].gateways if number <= len(rows) else None
    if said is not None:
        return tuple(dict.fromkeys(said))
    asked = [str(entry.value) for entry in loaded.merged["network.gateways"]]
    reached = ways[number][0] if number in ways else None
    return tuple(dict.fromkeys(([reached.name] if reached else []) + asked))


def _telling(number: int, report: Report) -> Report:
    """A report that says whose notices they are."""

    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            event = structs.replace(event, message=f"agent {number}: {event.message}")
        report(event)

    return tell


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
    return structs.replace(
        agent,
        shares=(*agent.shares, *shares),
        env=(*env, *agent.env),
        tools=(*agent.tools, *tools),
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
