"""The model: what a corral.toml may say, and the resolved Spec that planning gets.

The `*Table` classes are the shape of corral.toml and of the user's config.toml; unknown keys are
refused, and `corral config schema` is made from them. Spec and its parts are what is left when
all layers are merged and every value is checked: plain, frozen, complete.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..policy import Gateway, Network, Secret

Accel = Literal["auto", "kvm", "tcg"]
Carrier = Literal["auto", "vsock", "serial"]
Filesystem = Literal["auto", "virtiofs", "9p"]
P9Cache = Literal["none", "loose", "fscache", "mmap"]
Image = Literal["host"]

ACCELS: tuple[str, ...] = ("auto", "kvm", "tcg")
CARRIERS: tuple[str, ...] = ("auto", "vsock", "serial")
FILESYSTEMS: tuple[str, ...] = ("auto", "virtiofs", "9p")
P9_CACHES: tuple[str, ...] = ("none", "loose", "fscache", "mmap")
IMAGES: tuple[str, ...] = ("host",)

# What is read-only in a writable workspace unless `unprotect` names it: each of these is, or
# leads to, code that the host runs when the user next works in the folder.
PROTECTED: tuple[str, ...] = (
    *(".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir"),
    "corral.toml",
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


class ConfigTable(_Table, frozen=True, kw_only=True):
    """corral.toml, and config.toml in your configuration folder."""

    machine: MachineTable | UnsetType = UNSET
    workspace: WorkspaceTable | UnsetType = UNSET
    share: (
        Annotated[list[ShareTable], Meta(description="Further folders of the host.")] | UnsetType
    ) = UNSET
    run: RunTable | UnsetType = UNSET
    limits: LimitsTable | UnsetType = UNSET


TABLES: dict[str, type[_Table]] = {
    "machine": MachineTable,
    "workspace": WorkspaceTable,
    "share": ShareTable,
    "run": RunTable,
    "limits": LimitsTable,
}


class Machine(Struct, frozen=True, kw_only=True):
    """The virtual machine.

    memory, p9_msize and disk (0: none): bytes. kernel: absolute path or None.
    """

    cpus: int
    memory: int
    accel: Accel
    carrier: Carrier
    filesystem: Filesystem
    kernel: str | None
    p9_cache: P9Cache
    p9_msize: int
    cold: bool = False
    checkpoints: bool = False
    disk: int = 0


class Limits(Struct, frozen=True, kw_only=True):
    """What a sandbox may use of the host; None: no limit of its own.

    memory: bytes. cpu: percent of one processor. pids: processes and threads. io_weight: 1 to
    10000. io_read, io_write: bytes a second.
    """

    memory: int | None = None
    cpu: int | None = None
    pids: int | None = None
    io_weight: int | None = None
    io_read: int | None = None
    io_write: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self != Limits()


class Workspace(Struct, frozen=True, kw_only=True):
    """The folder being worked on.

    path: absolute real path. mask: gitignore patterns relative to it (see masks.py).
    unprotect: paths relative to it. copy: the copy of it that the sandbox has in its place, on the
    host; in the guest it is at `path` all the same.
    """

    path: str
    read_only: bool
    mask: tuple[str, ...]
    unprotect: tuple[str, ...]
    copy: str | None = None

    @property
    def on_host(self) -> str:
        """Where its files are on the host."""
        return self.copy or self.path


class Share(Struct, frozen=True, kw_only=True):
    """A further folder. source: absolute real path on the host. target: absolute, in the guest."""

    source: str
    target: str
    writable: bool


class Run(Struct, frozen=True, kw_only=True):
    """How the command runs.

    user: None for the user's own. workdir: absolute path in the guest, None for the workspace.
    env: names and values in order. timeout: seconds or None. tools: absolute paths of folders.
    """

    user: str | None
    workdir: str | None
    env: tuple[tuple[str, str], ...]
    timeout: float | None
    tools: tuple[str, ...]
    image: Image


class Spec(Struct, frozen=True, kw_only=True):
    """What is wanted, whole and checked.

    name: pattern [a-z0-9][a-z0-9-]{0,62}; by default from the workspace's name, so two sandboxes
    may have the same. gateways, secrets: those that this sandbox has. warnings: what the user
    should know, one sentence each.
    """

    machine: Machine
    workspace: Workspace
    shares: tuple[Share, ...]
    run: Run
    name: str
    limits: Limits = Limits()
    network: Network = Network()
    gateways: tuple[Gateway, ...] = ()
    secrets: tuple[Secret, ...] = ()
    warnings: tuple[str, ...] = ()
