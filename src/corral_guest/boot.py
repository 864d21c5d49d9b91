"""From the kernel's hand to a working PID 1: file systems, modules, control groups."""

from __future__ import annotations

import os
import socket

from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CGROUP_ROOT = "/sys/fs/cgroup"
SUPERVISOR_WEIGHT = "500"  # of processor time, where an agent has 100 (cgroup-v2.rst)
_NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
MAX_AGENTS = 32  # corral.spec.MAX_AGENTS
TERMINALS = 256  # of one agent; as many as it may have commands
# Tables of the whole kernel, which the first agent that fills one would take from all others. What
# is in them is charged to the control group of who puts it there (fs/file_table.c, fs/aio.c,
# kernel/fork.c): its limits bound an agent, so these need not be limits.
_WIDE = {
    "fs/file-max": str((1 << 63) - 1),
    "fs/aio-max-nr": str(1 << 40),
    "kernel/threads-max": str(1 << 22),
    "kernel/pid_max": str(1 << 22),  # the most on 64 bits (include/linux/threads.h)
    # Pseudoterminals are not charged, but divided. The reserve is for file systems of them that
    # were mounted in this mount namespace (fs/devpts/inode.c), as each agent's is; what else
    # anybody mounts in a namespace of its own has the rest, of which nobody else has need.
    "kernel/pty/max": str(MAX_AGENTS * TERMINALS + 1024),
    "kernel/pty/reserve": str(MAX_AGENTS * TERMINALS),
}


def mount_kernel_filesystems() -> None:
    """proc, sys, dev, and tmpfs where programs write."""
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.mount("sysfs", "/sys", "sysfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    try:
        linux.mount("devtmpfs", "/dev", "devtmpfs", linux.MS_NOSUID)
    except OSError as error:
        if error.errno != 16:  # EBUSY: the kernel mounted it itself (CONFIG_DEVTMPFS_MOUNT)
            raise
    for folder in ("/tmp", "/run"):  # noqa: S108 - the guest's own, empty
        os.makedirs(folder, exist_ok=True)


def move_root() -> None:
    """Leave the initramfs's root mount, on which pivot_root fails and namespaces are refused.

    The same tree is bound to a folder, moved to / and made the root, as switch_root(8) does with
    another tree; nothing is copied.
    """
    os.makedirs("/root-mount", exist_ok=True)
    linux.mount("/", "/root-mount", None, linux.MS_BIND | linux.MS_REC)
    os.chdir("/root-mount")
    linux.mount("/root-mount", "/", None, linux.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)


def load_modules(folder: str = "/modules") -> None:
    """Load every kernel module in `folder`, in the order of the names."""
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            linux.load_module(f"{folder}/{name}")


def start_cgroups() -> None:
    """Mount cgroup v2, move PID 1 to a group of its own and enable the controllers."""
    options = "nsdelegate,memory_recursiveprot"
    try:
        # Each command is moved to a group of its own, for which a move must not wait for the
        # kernel's RCU (cgroup-v2.rst; since Linux 6.0).
        linux.mount("cgroup2", CGROUP_ROOT, "cgroup2", 0, f"{options},favordynmods")
    except OSError:
        linux.mount("cgroup2", CGROUP_ROOT, "cgroup2", 0, options)
    os.mkdir(f"{CGROUP_ROOT}/supervisor")
    write(f"{CGROUP_ROOT}/supervisor/cgroup.procs", str(os.getpid()))
    available = read(f"{CGROUP_ROOT}/cgroup.controllers").split()
    enable(*(name for name in ("memory", "pids", "cpu") if name in available))
    if "cpu" in available:
        # It hears when an agent hangs; more than this, and the flood of one took it from others.
        write(f"{CGROUP_ROOT}/supervisor/cpu.weight", SUPERVISOR_WEIGHT)
    write("/proc/self/oom_score_adj", "-1000")


def widen_tables(folder: str = "/proc/sys") -> None:
    """Let no table of the kernel be full because of one agent. Raises OSError."""
    for name, limit in _WIDE.items():
        try:
            write(f"{folder}/{name}", limit)
        except FileNotFoundError:
            continue  # a kernel without that


def enable(*controllers: str) -> None:
    """Have control groups account for something. Raises OSError for what this kernel has not."""
    wanted = " ".join(f"+{name}" for name in controllers)
    write(f"{CGROUP_ROOT}/cgroup.subtree_control", wanted)


class DeviceEvents:
    """The kernel's device events (uevents), to wait for a device without polling."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT)
        self._socket.bind((0, 1))

    def retry(self, action: Callable[[], None], seconds: float) -> None:
        """Run `action` now and after every device event until it raises no OSError.

        Raises the action's last OSError when no event comes for `seconds`.
        """
        self._socket.settimeout(seconds)
        while True:
            try:
                return action()
            except OSError as error:
                failure = error
            try:
                self._socket.recv(8192)
            except TimeoutError:
                raise failure from None

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def mounts_below(folder: str) -> list[str]:
    """The mount points at a folder and below it (proc(5): space, tab, newline, backslash)."""
    found = []
    for line in read("/proc/self/mounts").splitlines():
        path = line.split(" ")[1]
        for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
            path = path.replace(f"\\{code}", character)
        if path == folder or path.startswith(folder + "/"):
            found.append(path)
    return found


def read(path: str) -> str:
    """The text of a small kernel file."""
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write a kernel file in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
