"""Command lines for bubblewrap: what a helper process sees of the host.

Pure: values in, argv out. The options are bwrap(1)'s.
"""

from __future__ import annotations

import dataclasses
import enum

from .warden import PIN


class Access(enum.Enum):
    """How a path appears in a tree."""

    READ_ONLY = "--ro-bind"
    WRITABLE = "--bind"
    DEVICE = "--dev-bind"


@dataclasses.dataclass(frozen=True, slots=True)
class Bind:
    """The host's `source` at `target`, both absolute.

    pinned: the source is a real path, and the warden refuses it when there is a link in it by now:
    whoever can write there (another sandbox, say) may not choose what is shown.
    """

    source: str
    target: str
    access: Access = Access.READ_ONLY
    pinned: bool = False

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return (self.access.value, PIN + self.source if self.pinned else self.source, self.target)


@dataclasses.dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link at `path` with the text `target`."""

    target: str
    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--symlink", self.target, self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """An empty folder."""

    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--dir", self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class EmptyReadOnly:
    """An empty folder that cannot be written to, over whatever is there."""

    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--tmpfs", self.path, "--remount-ro", self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """An empty folder in memory, a mount of its own."""

    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--tmpfs", self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """Nothing more can be written to the mount at path; mounts below stay as they are."""

    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--remount-ro", self.path)


Step = Bind | Symlink | Folder | EmptyReadOnly | Memory | Seal


def confined(
    bwrap: tuple[str, ...],
    tree: tuple[Step, ...],
    command: tuple[str, ...],
    *,
    uid: int,
    seccomp_fd: int | None = None,
    all_capabilities: bool = False,
    network: bool = False,
) -> tuple[str, ...]:
    """argv for `command` in a tree of its own: new user, PID, network, IPC and UTS namespaces.

    uid: the one id (and group id) of the new user namespace; it is the caller's own id outside.
    all_capabilities: keep capabilities inside that namespace, as a file server needs. network: it
    has the host's.
    """
    argv = [
        *bwrap,
        *("--unshare-user", "--uid", str(uid), "--gid", str(uid)),
        *("--unshare-pid", *(() if network else ("--unshare-net",))),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session"),
    ]
    if all_capabilities:
        argv += ["--cap-add", "ALL"]
    if seccomp_fd is not None:
        argv += ["--seccomp", str(seccomp_fd)]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for step in tree:
        argv += step.argv()
    return (*argv, "--", *command)


def warden(bwrap: tuple[str, ...], command: tuple[str, ...], *, root: bool) -> tuple[str, ...]:
    """argv for the warden: PID 1 of a PID namespace that sees the whole host tree.

    An ordinary user needs a user namespace for that, and capabilities in it; root has them. It is
    not tied to its parent by signal: bwrap killed half way could leave its child waiting for
    ever. The warden watches its parent itself.
    """
    user = () if root else ("--unshare-user", "--cap-add", "ALL")
    return (*bwrap, *user, "--unshare-pid", "--as-pid-1", "--dev-bind", "/", "/", "--", *command)
