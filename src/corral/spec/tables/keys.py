"""Model APIs and credentials; in the user's own file only."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from ...policy import Dialect
from .base import Table


class KeyTable(Table, frozen=True, kw_only=True):
    """Where a key is found; exactly one of these. The key itself is nowhere in a file of corral."""

    env: Annotated[str, Meta(description="A variable of yours.")] | UnsetType = UNSET
    command: (
        Annotated[
            list[str],
            Meta(
                description="A command that prints it, run without a shell.",
                examples=[["pass", "show", "anthropic"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    file: Annotated[str, Meta(description="A file that holds it.")] | UnsetType = UNSET
    keyring: (
        Annotated[
            list[str],
            Meta(
                description="Service and user name in your keyring.",
                examples=[["anthropic", "ada"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    claude: (
        Annotated[
            bool | str,
            Meta(description="The login of Claude Code: true, or its credentials file."),
        ]
        | UnsetType
    ) = UNSET


class GatewayTable(Table, frozen=True, kw_only=True):
    """A model API whose key stays outside the sandbox. Only in your own config.toml."""

    key: (
        Annotated[KeyTable, Meta(description="Where its key is found; default: its variable.")]
        | UnsetType
    ) = UNSET
    upstream: (
        Annotated[
            str,
            Meta(
                description="Where requests go, an http or https URL.",
                examples=["https://api.anthropic.com"],
            ),
        ]
        | UnsetType
    ) = UNSET
    dialect: (
        Annotated[Dialect, Meta(description="What it speaks; of anthropic and openai their own.")]
        | UnsetType
    ) = UNSET
    models: (
        Annotated[
            list[str],
            Meta(
                description="Models that may be asked for, as patterns; default: all.",
                examples=[["claude-*"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    budget_usd: (
        Annotated[int | float, Meta(description="What a sandbox may spend, in US dollars.")]
        | UnsetType
    ) = UNSET
    agent_budget_usd: (
        Annotated[int | float, Meta(description="What one agent of it may spend, in US dollars.")]
        | UnsetType
    ) = UNSET
    rpm: (
        Annotated[int, Meta(description="Requests of one agent a minute; default: no limit.")]
        | UnsetType
    ) = UNSET
    header: (
        Annotated[str, Meta(description="The header that carries the key; default: the dialect's.")]
        | UnsetType
    ) = UNSET


class SecretTable(Table, frozen=True, kw_only=True):
    """A credential of other hosts that stays outside the sandbox. Only in your own config.toml."""

    hosts: Annotated[
        list[str],
        Meta(
            description="Where it may go: NAME or *.NAME, with :PORT if that is not 443.",
            examples=[["api.github.com"]],
        ),
    ]
    header: (
        Annotated[str, Meta(description="The header that carries it; default: authorization.")]
        | UnsetType
    ) = UNSET
    key: (
        Annotated[KeyTable, Meta(description="Where it is found; default: the variable NAME.")]
        | UnsetType
    ) = UNSET
