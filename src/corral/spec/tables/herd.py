"""Several agents in one sandbox."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from ...policy import Mode
from ..model import (
    Restart,
    WorkspaceMode,
)
from .base import Table


class HerdTable(Table, frozen=True, kw_only=True):
    """Several agents in one sandbox; its keys hold for each that has no other of its own."""

    agents: (
        Annotated[
            int | str,
            Meta(description="How many, 1 to 32; default: one for each [[agent]].", examples=[4]),
        ]
        | UnsetType
    ) = UNSET
    workspace: (
        Annotated[
            WorkspaceMode,
            Meta(
                description="own: a copy each, held back until it is applied; together: all on the "
                "folder; turns: the same, one task at a time."
            ),
        ]
        | UnsetType
    ) = UNSET
    shared: (
        Annotated[str, Meta(description="A folder that all see at /shared, read-only.")] | UnsetType
    ) = UNSET
    memory: (
        Annotated[
            int | str,
            Meta(description="The most memory of one agent in the sandbox.", examples=["1GiB"]),
        ]
        | UnsetType
    ) = UNSET
    cpu: (
        Annotated[
            int | str, Meta(description="The most processor time of one agent.", examples=["100%"])
        ]
        | UnsetType
    ) = UNSET
    pids: (
        Annotated[
            int | str,
            Meta(description="The most processes and threads of one agent.", examples=[500]),
        ]
        | UnsetType
    ) = UNSET
    io_read: (
        Annotated[
            int | str,
            Meta(
                description="Bytes a second that one reads from the sandbox's disk.",
                examples=["50MiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    io_write: (
        Annotated[
            int | str,
            Meta(
                description="Bytes a second that one writes to the sandbox's disk.",
                examples=["20MiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    home: (
        Annotated[
            int | str,
            Meta(description="The most that one may keep in its home.", examples=["512MiB"]),
        ]
        | UnsetType
    ) = UNSET
    tmp: (
        Annotated[
            int | str,
            Meta(description="The most that one may keep in /tmp.", examples=["256MiB"]),
        ]
        | UnsetType
    ) = UNSET
    restart: (
        Annotated[
            Restart, Meta(description="When a jail that ended is made again; default: never.")
        ]
        | UnsetType
    ) = UNSET


class AgentTable(Table, frozen=True, kw_only=True):
    """One agent, what it has of its own; the first table is agent 1."""

    recipe: (
        Annotated[str, Meta(description="The agent program it is for.", examples=["claude"])]
        | UnsetType
    ) = UNSET
    workspace: Annotated[WorkspaceMode, Meta(description="As in [herd].")] | UnsetType = UNSET
    branch: (
        Annotated[
            str,
            Meta(
                description="Its branch of git, in a copy of its own; default: corral/NAME/NUMBER.",
                examples=["parser"],
            ),
        ]
        | UnsetType
    ) = UNSET
    tools: (
        Annotated[list[str], Meta(description="Further read-only program folders, on its PATH.")]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[dict[str, str], Meta(description="Environment variables to set.")] | UnsetType
    ) = UNSET
    net: Annotated[Mode, Meta(description="As network.mode, for this one.")] | UnsetType = UNSET
    allow: (
        Annotated[
            list[str],
            Meta(description="As network.allow, in its place.", examples=[["@python"]]),
        ]
        | UnsetType
    ) = UNSET
    gateways: (
        Annotated[
            list[str],
            Meta(description="Those of network.gateways that it may use; default: all."),
        ]
        | UnsetType
    ) = UNSET
    memory: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    cpu: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    pids: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    io_read: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    io_write: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    home: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    tmp: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    restart: Annotated[Restart, Meta(description="As in [herd].")] | UnsetType = UNSET
