"""The model: the resolved Spec that planning gets, plain, frozen, complete.

It is what is left when all layers are merged and every value is checked; what files may say is
in tables.
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
WorkspaceMode = Literal["own", "turns", "together"]
Restart = Literal["never", "on-failure", "always"]

ACCELS: tuple[str, ...] = ("auto", "kvm", "tcg")
CARRIERS: tuple[str, ...] = ("auto", "vsock", "serial")
FILESYSTEMS: tuple[str, ...] = ("auto", "virtiofs", "9p")
P9_CACHES: tuple[str, ...] = ("none", "loose", "fscache", "mmap")
IMAGES: tuple[str, ...] = ("host",)
SECCOMP_MODES: tuple[str, ...] = ("errno", "log", "kill")
WORKSPACE_MODES: tuple[str, ...] = ("own", "turns", "together")
RESTARTS: tuple[str, ...] = ("never", "on-failure", "always")
MAX_AGENTS = 32
"""Of one sandbox: each has a root port, a file server and some processes; 12 are tried often."""

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
    debug_shell: bool = False
    disk: int = 0


class Limits(Struct, frozen=True, kw_only=True):
    """What a sandbox may use of the host, or one agent in the guest; None: no limit of its own.

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


class AgentSpec(Struct, frozen=True, kw_only=True):
    """One agent of a sandbox, and what it has besides what all have.

    number: from 1. recipe: of a known agent program, or None. workspace: a copy of its own, held
    back until it is applied; or the folder that others work on too, one task at a time or together.
    branch: of git, in a copy of its own; None: corral/NAME/NUMBER where there are several agents.
    limits: inside the guest. home, tmp: the most bytes that it may keep there; None: by the
    machine's memory where there are several agents, else the kernel's default. network: in place of
    the sandbox's; gateways: those of the sandbox's that it may use; None for either: all. copy: the
    host's folder that it works on in place of the workspace.
    """

    number: int = 1
    recipe: str | None = None
    workspace: WorkspaceMode = "together"
    branch: str | None = None
    limits: Limits = Limits()
    home: int | None = None
    tmp: int | None = None
    restart: Restart = "never"
    shares: tuple[Share, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    tools: tuple[str, ...] = ()
    network: Network | None = None
    gateways: tuple[str, ...] | None = None
    copy: str | None = None


class Spec(Struct, frozen=True, kw_only=True):
    """What is wanted, whole and checked.

    name: pattern [a-z0-9][a-z0-9-]{0,62}; by default from the workspace's name, so two sandboxes
    may have the same. agents: at least one, numbered from 1. gateways, secrets: those that this
    sandbox has. warnings: what the user should know, one sentence each.
    """

    machine: Machine
    workspace: Workspace
    shares: tuple[Share, ...]
    run: Run
    name: str
    agents: tuple[AgentSpec, ...] = (AgentSpec(),)
    limits: Limits = Limits()
    network: Network = Network()
    gateways: tuple[Gateway, ...] = ()
    secrets: tuple[Secret, ...] = ()
    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether it is a herd: then each agent's workspace is at /workspace."""
        return len(self.agents) > 1

    def snapshot(self, agent: AgentSpec) -> int:
        """The number of the snapshot that an agent works on; 0: the folder itself.

        Those who share a workspace that is under review share the first one's.
        """
        if self.workspace.read_only:
            return 0
        if agent.workspace == "own":
            return agent.number
        if not self.workspace.review:
            return 0
        return next(each.number for each in self.agents if each.workspace != "own")

    @property
    def snapshots(self) -> tuple[int, ...]:
        """All that its agents work on."""
        return tuple(sorted({self.snapshot(agent) for agent in self.agents} - {0}))

    @property
    def reviewed(self) -> bool:
        """Whether changes are held back, of one agent at least."""
        return bool(self.snapshots)

    def on_host(self, agent: AgentSpec) -> str:
        """Where the files of an agent's workspace are on the host."""
        return agent.copy or self.workspace.on_host
