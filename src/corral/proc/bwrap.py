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
    """An empty folder in memory, a mount of its own, of at most `size` bytes."""

    path: str
    size: int | None = None
    mode: int = 0o755  # what bubblewrap's own are

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        sized = () if self.size is None else ("--size", str(self.size))
        moded = () if self.mode == 0o755 else ("--perms", f"{self.mode:o}")
        return (*moded, *sized, "--tmpfs", self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """Nothing more can be written to the mount at path; mounts below stay as they are."""

    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--remount-ro", self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """A read-only file with what the descriptor `fd` has."""

    fd: int
    path: str

    def argv(self) -> tuple[str, ...]:
        """As bwrap options."""
        return ("--ro-bind-data", str(self.fd), self.path)


Step = Bind | Symlink | Folder | EmptyReadOnly | Memory | Seal | Data


def confined(
    bwrap: tuple[str, ...],
    tree: tuple[Step, ...],
    command: tuple[str, ...],
    *,
    uid: int,
    root: bool,
    gid: int | None = None,
    seccomp_fd: int | None = None,
    all_capabilities: bool = False,
    network: bool = False,
    new_session: bool = True,
    options: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """argv for `command` in a tree of its own: new user, PID, network, IPC and UTS namespaces.

    root: the caller is the host's root. uid, gid: the one id (and group id, the same unless given)
    of the new user namespace; it is the caller's own id outside.
    all_capabilities: keep capabilities inside that namespace, as a file server needs. network: it
    has the host's. new_session: it leaves the caller's session. options: further ones of bwrap's.
    """
    argv = [
        *bwrap,
        *("--unshare-user", "--uid", str(uid), "--gid", str(uid if gid is None else gid)),
        *("--unshare-pid", *(() if network else ("--unshare-net",))),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", *(("--new-session",) if new_session else ())),
        *options,
    ]
    if all_capabilities:
        argv += ["--cap-add", "ALL"]
    if seccomp_fd is not None:
        argv += ["--seccomp", str(seccomp_fd)]
    argv += ["--proc", "/proc"]
    if root:
        # The files in /proc/sys are root's own: they can be written without any capability, and
        # core_pattern names a program that the kernel starts outside. bubblewrap seals /proc/irq
        # and the like, and leaves this out (access(2) on the folder itself says no). For others
        # nothing is covered: a user namespace inside could mount no /proc (mount_too_revealing).
        argv += ["--ro-bind", "/proc/sys", "/proc/sys"]
    argv += ["--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - its own
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
