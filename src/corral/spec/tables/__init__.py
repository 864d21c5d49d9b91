"""The shape of corral.toml and of the user's config.toml; unknown keys are refused.

`corral config schema` is made from these classes. [gateway.*] and [secrets.*] say where keys are
found, so only the user's own file may have them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from .base import Table
from .herd import AgentTable, HerdTable
from .keys import GatewayTable, SecretTable
from .machine import LimitsTable, MachineTable
from .network import NetworkTable
from .workspace import ActionTable, RunTable, ShareTable, WorkspaceTable


class ConfigTable(Table, frozen=True, kw_only=True):
    """corral.toml, and config.toml in your configuration folder."""

    machine: MachineTable | UnsetType = UNSET
    workspace: WorkspaceTable | UnsetType = UNSET
    share: (
        Annotated[list[ShareTable], Meta(description="Further folders of the host.")] | UnsetType
    ) = UNSET
    run: RunTable | UnsetType = UNSET
    limits: LimitsTable | UnsetType = UNSET
    network: NetworkTable | UnsetType = UNSET
    actions: (
        Annotated[
            dict[str, ActionTable],
            Meta(description="Commands that tasks call by a name; they run inside the sandbox."),
        ]
        | UnsetType
    ) = UNSET
    herd: HerdTable | UnsetType = UNSET
    agent: (
        Annotated[list[AgentTable], Meta(description="One for each agent, in order.")] | UnsetType
    ) = UNSET
    gateway: (
        Annotated[
            dict[str, GatewayTable],
            Meta(description="Model APIs by name; only in your own config.toml."),
        ]
        | UnsetType
    ) = UNSET
    secrets: (
        Annotated[
            dict[str, SecretTable],
            Meta(
                description="Credentials of other hosts by the name of their variable; only in "
                "your own config.toml."
            ),
        ]
        | UnsetType
    ) = UNSET


TABLES: dict[str, type[Table]] = {
    "machine": MachineTable,
    "workspace": WorkspaceTable,
    "share": ShareTable,
    "run": RunTable,
    "limits": LimitsTable,
    "network": NetworkTable,
    "herd": HerdTable,
    "agent": AgentTable,
}
DOOR_TABLES: dict[str, type[Table]] = {"gateway": GatewayTable, "secrets": SecretTable}
"""[gateway.NAME], [secrets.NAME]: in the user's own file only."""
NAMED_TABLES: dict[str, type[Table]] = {**DOOR_TABLES, "actions": ActionTable}
"""Tables with a name of the user's, [gateway.NAME]."""
