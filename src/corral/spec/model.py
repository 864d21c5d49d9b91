"""The model: the resolved Spec that planning gets, plain, frozen, complete.

It is what is left when all layers are merged and every value is checked; what files may say is
in tables.py.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ..policy import Gateway, Network, Secret

Accel = Literal["auto", "kvm", "tcg"]
Carrier = Literal["auto", "vsock", "serial"]
Filesystem = Literal["auto", "virtiofs", "9p"]
P9Cache = Literal["none", "loose", "fscache", "mmap"]
Image = Literal["host"]
SeccompMode = Literal["errno", "log", "kill"]

ACCELS: tuple[str, ...] = ("auto", "kvm", "tcg")
CARRIERS: tuple[str, ...] = ("auto", "vsock", "serial")
FILESYSTEMS: tuple[str, ...] = ("auto", "virtiofs", "9p")
P9_CACHES: tuple[str, ...] = ("none", "loose", "fscache", "mmap")
IMAGES: tuple[str, ...] = ("host",)
SECCOMP_MODES: tuple[str, ...] = ("errno", "log", "kill")

# What is read-only in a writable workspace unless `unprotect` names it: each of these is, or
# leads to, code that the host runs when the user next works in the folder.
PROTECTED: tuple[str, ...] = (
    *(".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir"),
    "corral.toml",
)


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
    unprotect: paths relative to it. review: the sandbox gets a snapshot in its place, and changes
    reach the folder when they are applied. copy: what the sandbox has in its place, on the host; in
    the guest it is at `path` all the same.
    """

    path: str
    read_only: bool
    mask: tuple[str, ...]
    unprotect: tuple[str, ...]
    review: bool = False
    copy: str | None = None

    @property
    def reviewed(self) -> bool:
        """Whether changes are held back: what cannot be written needs no snapshot."""
        return self.review and not self.read_only

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
    seccomp: default, none, or the absolute path of a profile.
    """

    user: str | None
    workdir: str | None
    env: tuple[tuple[str, str], ...]
    timeout: float | None
    tools: tuple[str, ...]
    image: Image
    seccomp: str = "default"
    seccomp_mode: SeccompMode = "errno"


class Action(Struct, frozen=True, kw_only=True):
    """A command that the project calls by a name, for tasks.

    cwd: a folder of the workspace, or an absolute path in the sandbox. timeout: seconds or None.
    """

    name: str
    run: tuple[str, ...]
    cwd: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None


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
    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()
