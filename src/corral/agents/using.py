"""What an agent gives its sandbox: shares, tools, variables, hosts, gateways; a layer of the spec.

All of it stands below what the user says in options and files, and nothing of it comes from a
project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct, structs

from ..errors import ConfigError
from ..policy import GATEWAY_DOMAIN, Gateway, Key, Secret
from ..spec import Extra, Loaded
from ..spec.gateways import BUILT_IN
from ..spec.keys import CLAUDE_CREDENTIALS, env_key
from ..spec.layers import scalar
from ..spec.network_settings import NamedSecret
from ..spec.values import EnvVar, NamedShare
from .argv import environment
from .homes import Home
from .model import Reached, Recipe
from .programs import Found
from .validate import dialects


class Use(Struct, frozen=True, kw_only=True):
    """An agent in a sandbox. reached: the gateway to its model, None for none.

    shares: (source, target), writable. The rest is as in AgentSpec.
    """

    recipe: Recipe
    program: Found
    reached: Reached | None
    shares: tuple[tuple[str, str], ...]
    env: tuple[tuple[str, str], ...]
    tools: tuple[str, ...]
    allow: tuple[str, ...]
    gateways: tuple[str, ...]
    secrets: tuple[str, ...]
    own_gateways: Mapping[str, Gateway] = {}

    def extra(self) -> Extra:
        """As a layer for load_spec."""
        held = {
            name: Secret(name=name, hosts=each.hosts, header=each.header, key=env_key(name))
            for name, each in self.recipe.table.secrets.items()
            if name in self.secrets
        }
        return Extra(
            origin=f"the recipe {self.recipe.name}",
            values={
                "share": [
                    {"source": source, "target": target, "writable": True}
                    for source, target in self.shares
                ],
                "run.env": dict(self.env),
                "run.tools": list(self.tools),
                "network.allow": list(self.allow),
                "network.gateways": list(self.gateways),
                "network.secrets": list(self.secrets),
            },
            gateways=self.own_gateways,
            secrets=held,
        )

    def argv(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """A command line of the recipe, with the program that was found."""
        return (self.program.path, *words[1:])


def use(recipe: Recipe, loaded: Loaded, program: Found, home: Home, way: Way) -> Use:
    """What this agent gets. loaded: what the user says. way: to its model; see `reach`."""
    reached, added, gateways = way
    inside = guest_home(loaded)
    taken = [cast("NamedShare", entry.value).target for entry in loaded.merged["share"]]
    places = [(source, inside + place[1:]) for source, place in home.places]
    shares = [each for each in places if not any(_overlap(each[1], other) for other in taken)]
    passed = _passed(loaded)
    asked = {cast("NamedSecret", entry.value).name for entry in loaded.merged["network.secrets"]}
    return Use(
        recipe=recipe,
        program=program,
        reached=reached,
        shares=tuple(shares),
        env=tuple(environment(recipe, inside, reached).items()),
        tools=program.tools,
        allow=recipe.table.hosts,
        gateways=added,
        secrets=tuple(name for name in recipe.table.secrets if name not in {*passed, *asked}),
        own_gateways=gateways,
    )


Way = tuple[Reached | None, tuple[str, ...], Mapping[str, Gateway]]
"""The gateway to a model, gateways to add, gateways in place of the user's own."""


def reach(
    recipe: Recipe,
    loaded: Loaded,
    environ: Mapping[str, str],
    *,
    share_auth: bool = False,
    only: Sequence[str] | None = None,
) -> Way:
    """The way to the agent's model. only: the gateways that this agent may use; None: all.

    First those that the user asked for, then the recipe's that have a key. Raises ConfigError.
    """
    known = {**BUILT_IN, **loaded.doors.gateways}
    if share_auth:
        gateway = _with_login(recipe, known, environ)
        if only is not None and gateway.name not in only:
            raise _none_of_these(recipe, gateway.name)
        return reached_by(gateway), (gateway.name,), {gateway.name: gateway}
    fitting = dialects(recipe.table)
    if not fitting:
        return None, (), {}
    asked = [str(entry.value) for entry in loaded.merged["network.gateways"]]
    for name in asked if only is None else only:
        found = known.get(name)
        if found is not None and found.dialect in fitting:
            return reached_by(found), () if name in asked else (name,), {}
    passed = _passed(loaded)
    for name in recipe.table.gateways:
        found = known.get(name)
        if found is None or only is not None:
            continue
        if found.key is not None and found.key.kind == "env" and found.key.value[0] in passed:
            return None, (), {}  # the user gives it the key itself
        if _has_key(found, environ):
            return reached_by(found), (name,), {}
    if only is not None:
        raise _none_of_these(recipe, " or ".join(fitting))
    raise _no_key(recipe, known, fitting)


def guest_home(loaded: Loaded) -> str:
    """The home in the sandbox: the user's own path, or /root for a user who becomes root there."""
    becomes = scalar(loaded.merged, "run.user") == "root" and os.getuid() != 0
    return "/root" if becomes else loaded.place.home


def reached_by(gateway: Gateway) -> Reached:
    """What an agent needs to know of a gateway."""
    path = "/v1" if gateway.dialect == "openai" else ""
    url = f"http://{gateway.name}.{GATEWAY_DOMAIN}{path}"
    return Reached(name=gateway.name, dialect=gateway.dialect, url=url)


def _has_key(gateway: Gateway, environ: Mapping[str, str]) -> bool:
    """Whether there is one, as far as can be told without looking at it."""
    key = gateway.key
    return key is None or key.kind != "env" or bool(environ.get(key.value[0]))


def _with_login(
    recipe: Recipe, known: Mapping[str, Gateway], environ: Mapping[str, str]
) -> Gateway:
    if recipe.table.share_auth != "claude":
        raise ConfigError(
            f"{recipe.name} has no login that could be shared: --share-auth is for claude.",
            hint="Give it a key through a gateway; see docs/gateway.md.",
        )
    folder = environ.get("CLAUDE_CONFIG_DIR") or f"{environ.get('HOME', '')}/.claude"
    key = Key(kind="claude", value=(f"{folder}/{CLAUDE_CREDENTIALS}",))
    gateway = known[recipe.table.gateways[0]] if recipe.table.gateways else BUILT_IN["anthropic"]
    return structs.replace(gateway, key=key)


def _passed(loaded: Loaded) -> set[str]:
    """Variables that the user gives the sandbox."""
    return {cast("EnvVar", entry.value).name for entry in loaded.merged["run.env"]}


def _none_of_these(recipe: Recipe, what: str) -> ConfigError:
    return ConfigError(
        f"{recipe.name} needs a gateway to {what}, and may use none such.",
        hint="Name one in the agent's gateways, or leave that list out.",
    )


def _no_key(recipe: Recipe, known: Mapping[str, Gateway], fitting: tuple[str, ...]) -> ConfigError:
    variables = [
        gateway.key.value[0]
        for name in recipe.table.gateways
        if (gateway := known.get(name)) and gateway.key and gateway.key.kind == "env"
    ]
    named = " or ".join(variables) or "a gateway"
    hints = [f"export {variables[0]}=... before you start corral"] if variables else []
    hints.append("or say in your config.toml where the key is found (docs/gateway.md)")
    own = [name for name, each in known.items() if name not in BUILT_IN and each.dialect in fitting]
    hints += [f"or --gateway {own[0]}"] if own else []
    if recipe.table.share_auth == "claude":
        hints.append("or, with a Claude subscription, --share-auth")
    return ConfigError(
        f"{recipe.name} needs a key for its model, which stays outside the sandbox: "
        f"{named} is not set.",
        hint="; ".join(hints) + ".",
    )


def _overlap(one: str, other: str) -> bool:
    return (one + "/").startswith(other + "/") or (other + "/").startswith(one + "/")
