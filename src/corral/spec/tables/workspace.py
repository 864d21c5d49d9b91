"""The folder, further ones, and what runs on them."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from ..model import (
    Image,
    SeccompMode,
)
from .base import Table


class WorkspaceTable(Table, frozen=True, kw_only=True):
    """The folder being worked on."""

    read_only: (
        Annotated[bool, Meta(description="The sandbox cannot change the workspace.")] | UnsetType
    ) = UNSET
    review: (
        Annotated[
            bool, Meta(description="Changes are held back until they are applied: corral diff.")
        ]
        | UnsetType
    ) = UNSET
    mask: (
        Annotated[
            list[str],
            Meta(
                description="Files the sandbox does not see, as gitignore patterns; the last that "
                "matches decides.",
                examples=[[".env", "secrets/"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    unprotect: (
        Annotated[
            list[str],
            Meta(
                description="Paths the sandbox may change although the host runs what they hold.",
                examples=[[".git/config"]],
            ),
        ]
        | UnsetType
    ) = UNSET


class ShareTable(Table, frozen=True, kw_only=True):
    """A further folder of the host."""

    source: Annotated[str, Meta(description="A folder; relative to this file; ~ is your home.")]
    target: (
        Annotated[str, Meta(description="Where it appears; default: where it is on the host.")]
        | UnsetType
    ) = UNSET
    writable: (
        Annotated[bool, Meta(description="The sandbox may change it; default: false.")] | UnsetType
    ) = UNSET


class RunTable(Table, frozen=True, kw_only=True):
    """How commands run."""

    user: (
        Annotated[str, Meta(description="Who runs the command: your own name (default) or root.")]
        | UnsetType
    ) = UNSET
    workdir: (
        Annotated[str, Meta(description="Where the command starts; default: the workspace.")]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[dict[str, str], Meta(description="Environment variables to set.")] | UnsetType
    ) = UNSET
    pass_env: (
        Annotated[list[str], Meta(description="Environment variables to take from yours.")]
        | UnsetType
    ) = UNSET
    timeout: (
        Annotated[
            int | float | str,
            Meta(description="End the command after this time; default: never.", examples=["30s"]),
        ]
        | UnsetType
    ) = UNSET
    tools: (
        Annotated[
            list[str],
            Meta(description="Further read-only program folders.", examples=[["~/.nvm"]]),
        ]
        | UnsetType
    ) = UNSET
    image: (
        Annotated[Image, Meta(description="Where programs come from; host: this machine's.")]
        | UnsetType
    ) = UNSET
    seccomp: (
        Annotated[
            str,
            Meta(
                description="The seccomp profile: default, none, or a file in Docker's format.",
                examples=["default"],
            ),
        ]
        | UnsetType
    ) = UNSET
    seccomp_mode: (
        Annotated[
            SeccompMode,
            Meta(description="What becomes of a refused call: errno, log (and allow) or kill."),
        ]
        | UnsetType
    ) = UNSET


class ActionTable(Table, frozen=True, kw_only=True):
    """A command that tasks call by its name. It runs inside the sandbox only."""

    run: Annotated[
        list[str],
        Meta(description="The command, run without a shell.", examples=[["pytest", "-q"]]),
    ]
    cwd: (
        Annotated[str, Meta(description="Where it starts; default: the workspace.")] | UnsetType
    ) = UNSET
    env: (
        Annotated[dict[str, str], Meta(description="Environment variables to set.")] | UnsetType
    ) = UNSET
    timeout: (
        Annotated[
            int | float | str,
            Meta(description="End it after this time; default: never.", examples=["5m"]),
        ]
        | UnsetType
    ) = UNSET
