"""What it may reach."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from ...policy import Mode
from .base import Table


class NetworkTable(Table, frozen=True, kw_only=True):
    """What the sandbox may reach, and what reaches it."""

    mode: (
        Annotated[
            Mode,
            Meta(description="none, allow (only what is listed) or internet (any public host)."),
        ]
        | UnsetType
    ) = UNSET
    allow: (
        Annotated[
            list[str],
            Meta(
                description="Hosts that may be reached: NAME, *.NAME, an address or network, each "
                "with :PORT if it is for that only, or a @preset. Implies mode allow.",
                examples=[["@python", "*.example.org:443"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    deny: (
        Annotated[
            list[str],
            Meta(
                description="Hosts that may not be reached; goes before allow.",
                examples=[["gist.github.com"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    ports: (
        Annotated[
            list[int] | str,
            Meta(
                description="Ports of hosts without one, and of mode internet.",
                examples=[[22, 80, 443]],
            ),
        ]
        | UnsetType
    ) = UNSET
    hosts: (
        Annotated[
            list[str],
            Meta(
                description="Where names lead, NAME[:PORT]=ADDRESS[:PORT]; may be private.",
                examples=[["db.test=192.168.1.5"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    publish: (
        Annotated[
            list[int | str],
            Meta(
                description="Ports of the host that lead into the sandbox, [HOST:]PORT[:GUEST].",
                examples=[["8080:80"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    max_connections: (
        Annotated[
            int | str,
            Meta(description="Connections of one agent at once, 1 to 4096; default: 256."),
        ]
        | UnsetType
    ) = UNSET
    rate: (
        Annotated[
            int | float | str,
            Meta(description="New connections of one agent a second; default: 50."),
        ]
        | UnsetType
    ) = UNSET
    max_bytes: (
        Annotated[
            int | str,
            Meta(
                description="Bytes of one agent in both directions; default: no limit.",
                examples=["2GiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    idle: (
        Annotated[
            int | float | str,
            Meta(description="Close a connection after this time of silence; default: 15m."),
        ]
        | UnsetType
    ) = UNSET
    gateways: (
        Annotated[
            list[str],
            Meta(
                description="Model APIs that it may use, their keys staying outside.",
                examples=[["anthropic"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    secrets: (
        Annotated[
            list[str],
            Meta(
                description="Credentials of other hosts that it may use, staying outside: NAME of "
                "a [secrets.NAME], or NAME@HOST[,HOST] with NAME from your environment.",
                examples=[["GITHUB_TOKEN"]],
            ),
        ]
        | UnsetType
    ) = UNSET
