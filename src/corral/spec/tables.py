"""The shape of corral.toml and of the user's config.toml; unknown keys are refused.

`corral config schema` is made from these classes. [gateway.*] and [secrets.*] say where keys are
found, so only the user's own file may have them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ..policy import Dialect, Mode
from .model import (
    Accel,
    Carrier,
    Filesystem,
    Image,
    P9Cache,
    Restart,
    SeccompMode,
    WorkspaceMode,
)


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class MachineTable(_Table, frozen=True, kw_only=True):
    """The virtual machine."""

    cpus: (
        Annotated[
            int | str,
            Meta(
                description="Virtual CPUs, 1 to 128; default: the host's, at most 4.", examples=[2]
            ),
        ]
        | UnsetType
    ) = UNSET
    memory: (
        Annotated[
            int | str,
            Meta(
                description="Memory, 64MiB to 1024GiB; default: half of the host's, at most 4GiB.",
                examples=["4GiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    disk: (
        Annotated[
            int | str,
            Meta(
                description="A disk for what `corral up` keeps, 64MiB to 10TiB; default: none.",
                examples=["20GiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    accel: (
        Annotated[
            Accel, Meta(description="auto measures whether KVM works, and uses TCG otherwise.")
        ]
        | UnsetType
    ) = UNSET
    carrier: (
        Annotated[Carrier, Meta(description="What carries the channel between host and guest.")]
        | UnsetType
    ) = UNSET
    filesystem: (
        Annotated[Filesystem, Meta(description="How the guest reaches shared folders.")] | UnsetType
    ) = UNSET
    kernel: (
        Annotated[str, Meta(description="A guest kernel of your own: a vmlinuz or vmlinux file.")]
        | UnsetType
    ) = UNSET
    cold: (
        Annotated[bool, Meta(description="Boot the machine instead of restoring a saved one.")]
        | UnsetType
    ) = UNSET
    p9_cache: (
        Annotated[P9Cache, Meta(description="The 9p client's cache mode; see the kernel's 9p.rst.")]
        | UnsetType
    ) = UNSET
    p9_msize: (
        Annotated[int | str, Meta(description="Bytes of one 9p message.", examples=["512KiB"])]
        | UnsetType
    ) = UNSET
    debug_shell: (
        Annotated[bool, Meta(description="A shell of each agent at a vsock port.")] | UnsetType
    ) = UNSET
    checkpoints: (
        Annotated[
            bool,
            Meta(
                description="It can be checkpointed and forked; needs QEMU 10 and virtiofsd 1.13."
            ),
        ]
        | UnsetType
    ) = UNSET


class WorkspaceTable(_Table, frozen=True, kw_only=True):
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


class ShareTable(_Table, frozen=True, kw_only=True):
    """A further folder of the host."""

    source: Annotated[str, Meta(description="A folder; relative to this file; ~ is your home.")]
    target: (
        Annotated[str, Meta(description="Where it appears; default: where it is on the host.")]
        | UnsetType
    ) = UNSET
    writable: (
        Annotated[bool, Meta(description="The sandbox may change it; default: false.")] | UnsetType
    ) = UNSET


class RunTable(_Table, frozen=True, kw_only=True):
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


class LimitsTable(_Table, frozen=True, kw_only=True):
    """What a sandbox may use of the host, all its processes together (cgroup v2)."""

    memory: (
        Annotated[
            int | str,
            Meta(description="Memory, 256MiB to 1024GiB.", examples=["6GiB"]),
        ]
        | UnsetType
    ) = UNSET
    cpu: (
        Annotated[
            int | str,
            Meta(description="Processor time, in percent of one processor.", examples=["150%"]),
        ]
        | UnsetType
    ) = UNSET
    pids: (
        Annotated[
            int | str,
            Meta(description="Processes and threads.", examples=[500]),
        ]
        | UnsetType
    ) = UNSET
    io_weight: (
        Annotated[
            int | str,
            Meta(
                description="Weight against others on the same disk, 1 to 10000; theirs is 100.",
                examples=[50],
            ),
        ]
        | UnsetType
    ) = UNSET
    io_read: (
        Annotated[
            int | str,
            Meta(description="Bytes a second read from the workspace's disk.", examples=["50MiB"]),
        ]
        | UnsetType
    ) = UNSET
    io_write: (
        Annotated[
            int | str,
            Meta(description="Bytes a second written to the workspace's disk.", examples=["50MiB"]),
        ]
        | UnsetType
    ) = UNSET


class NetworkTable(_Table, frozen=True, kw_only=True):
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


class HerdTable(_Table, frozen=True, kw_only=True):
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


class AgentTable(_Table, frozen=True, kw_only=True):
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
    home: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    tmp: Annotated[int | str, Meta(description="As in [herd].")] | UnsetType = UNSET
    restart: Annotated[Restart, Meta(description="As in [herd].")] | UnsetType = UNSET


class KeyTable(_Table, frozen=True, kw_only=True):
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


class GatewayTable(_Table, frozen=True, kw_only=True):
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


class SecretTable(_Table, frozen=True, kw_only=True):
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


class ActionTable(_Table, frozen=True, kw_only=True):
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


class ConfigTable(_Table, frozen=True, kw_only=True):
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


TABLES: dict[str, type[_Table]] = {
    "machine": MachineTable,
    "workspace": WorkspaceTable,
    "share": ShareTable,
    "run": RunTable,
    "limits": LimitsTable,
    "network": NetworkTable,
    "herd": HerdTable,
    "agent": AgentTable,
}
DOOR_TABLES: dict[str, type[_Table]] = {"gateway": GatewayTable, "secrets": SecretTable}
"""[gateway.NAME], [secrets.NAME]: in the user's own file only."""
NAMED_TABLES: dict[str, type[_Table]] = {**DOOR_TABLES, "actions": ActionTable}
"""Tables with a name of the user's, [gateway.NAME]."""
