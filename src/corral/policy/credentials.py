"""Credentials that stay on the host, by reference: where they are found, never what they are."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Dialect = Literal["anthropic", "openai"]
ANTHROPIC: Dialect = "anthropic"
OPENAI: Dialect = "openai"


class Key(Struct, frozen=True, kw_only=True):
    """Where a credential is found.

    kind: env (value: a variable's name), command (an argv, run without a shell; its first line of
    output), file (a path; its first line), keyring (service and user name), claude (a path: the
    credentials file of Claude Code on the host, with a subscription's login).
    """

    kind: Literal["env", "command", "file", "keyring", "claude"]
    value: tuple[str, ...]


class Gateway(Struct, frozen=True, kw_only=True):
    """A model API that a sandbox reaches as http://NAME.corral.internal.

    upstream: an absolute URL without a path's last slash. key: None where upstream wants none.
    header: what carries the key ("x-api-key", "authorization"), by default the dialect's. models:
    patterns of fnmatch(3); none: all. budget_usd: of the sandbox, agent_budget_usd: of each agent,
    None: no limit; rpm: requests a minute of each agent, None: no limit.
    """

    name: str
    dialect: Dialect
    upstream: str
    key: Key | None
    header: str | None = None
    models: tuple[str, ...] = ()
    budget_usd: float | None = None
    agent_budget_usd: float | None = None
    rpm: int | None = None


class Secret(Struct, frozen=True, kw_only=True):
    """A credential for other hosts: the sandbox has a placeholder, replaced on the way out.

    name: the variable in the sandbox that holds the placeholder. hosts: canonical names, or
    "*.name"; reached by TLS on port 443 (or the port after a colon). header: the one header in
    which the placeholder is replaced, lower case.
    """

    name: str
    hosts: tuple[str, ...]
    header: str
    key: Key
