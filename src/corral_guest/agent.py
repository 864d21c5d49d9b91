"""One agent: its folder tree, its jail, and the socket to the jail's first process.

What comes from the jail (`jailed`) is as hostile as the agent: sizes and types are checked.
"""

from __future__ import annotations

import array
import binascii
import json
import os
import socket

from . import boot, disk, flows, jail, linux, tree
from .fresh import Fresh
from .groups import Groups
from .vitals import Vitals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .loop import Loop

    T = TypeVar("T")

TOOLBOX = "/toolbox"
DISK_LIMIT = "io.max"  # its text goes without the device, which the guest knows
AGENTS = "/agents"
EXPORTS = "/exports"  # no part of a jail
NOBODY = 65534  # what ids outside a user namespace's map look like (the kernel's overflowuid)
# Of each network namespace; the first port that needs no capability (ip_sysctl in the kernel).
_LOWEST_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
MAX_REPLY = 4096  # bytes; `jailed` says little
MAX_REQUEST = 65536  # bytes of one packet to `jailed`; a longer request travels in a memory file


def plain(error: Exception) -> str:
    """An error for the host to read."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def share_folders() -> None:
    """Make the folders of which jails see what is mounted in them, also after they were made."""
    for folder, mode in ((TOOLBOX, 0o755), (AGENTS, 0o711)):
        os.mkdir(folder, mode)
        linux.mount(folder, folder, None, linux.MS_BIND)
        linux.mount("none", folder, None, linux.MS_SHARED)


def mount_share(
    events: boot.DeviceEvents, share: dict[str, Any], target: str, flags: int = 0
) -> None:
    """Mount a share by its tag at `target` once its device is there."""
    os.makedirs(target, exist_ok=True)
    kind, options = share["kind"], share["options"]
    flags |= linux.MS_NOSUID | linux.MS_NODEV
    events.retry(lambda: linux.mount(share["tag"], target, kind, flags, options), 20)


def attempt(work: Callable[..., object], *arguments: object) -> bool:
    """Do what may fail without harm; whether it went well."""
    try:
        work(*arguments)
    except OSError:
        return False
    return True


class Agent:
    """A jail: `request` asks its first process for something, `reply` is what that says.

    identity: number, uid, who it is inside, id maps. call: the host's call that is unanswered.
    """

    def __init__(self, identity: dict[str, Any], loop: Loop) -> None:
        self.number: int = identity["number"]
        self._identity = identity
        self._loop = loop
        self.uid: int = identity["uid"]
        self.home = f"{AGENTS}/{self.number}"
        self.cgroup = f"{boot.CGROUP_ROOT}/agent-{self.number}"
        self.groups = Groups(loop, self.cgroup)
        self.vitals = Vitals(self.number)
        self.share = flows.Share()
        self.socket: socket.socket | None = None
        self.call: int | None = None
        self.reason = ""  # why it ended before it was up
        self.killed = False  # by the host
        self._fresh: Fresh | None = None
        self._caches = False  # whether the file system of the export does
        self._pause = -1  # pidfd of the jail's first process, which has its namespaces

    def furnish(self, setup: dict[str, Any], events: boot.DeviceEvents) -> None:
        """Give a jail that was made its limits, its name and its tree; it then says that it is up.

        The tree: the agent's export, and a writable layer of its own over the toolbox.
        """
        self._limit(setup["limits"])
        self._mount_export(setup, events)
        if setup["export"]["kind"] == "virtiofs":
            self._caches = True
        own = f"{self.home}/own"
        os.mkdir(own)
        flags = linux.MS_NODEV | linux.MS_NOSUID
        linux.mount("tmpfs", own, "tmpfs", flags, tree.memory(0o755, setup["room"]))
        os.mkdir(f"{own}/files")
        self._put_all(f"{own}/files", setup["files"])
        self._put(f"{own}/files", "/etc/machine-id", setup["machine_id"] + "\n", 0o444)
        layers = disk.layers(events, self.number) if setup["disk"] else own
        self._limit_disk(setup["limits"])
        for folder in ("upper", "work"):
            os.makedirs(f"{layers}/{folder}", 0o755, exist_ok=True)
        if os.stat(f"{layers}/upper").st_uid != NOBODY:  # on a disk it may be from before
            os.chown(f"{layers}/upper", NOBODY, NOBODY)
        os.mkdir(f"{self.home}/root")
        linux.mount(
            "overlay",
            f"{self.home}/root",
            "overlay",
            linux.MS_NODEV | linux.MS_NOSUID,
            f"lowerdir={own}/files:{TOOLBOX},"
            f"upperdir={layers}/upper,workdir={layers}/work,redirect_dir=on",
        )
        terminals = f"{self.home}/terminals"
        os.mkdir(terminals)
        flags = linux.MS_NOSUID | linux.MS_NOEXEC
        linux.mount("devpts", terminals, "devpts", flags, tree.terminals(boot.TERMINALS))
        told = ("hostname", "tree", "filters")
        self.request({name: setup[name] for name in told})

    def _mount_export(self, setup: dict[str, Any], events: boot.DeviceEvents) -> None:
        """Show the jail its export, which stays mounted where no jail sees it.

        A jail that is made again shows the same: a file server does not like to begin anew.
        """
        export = f"{EXPORTS}/{self.number}"
        # Not os.path.ismount, which asks the file server.
        if export not in boot.mounts_below(EXPORTS):
            mount_share(events, setup["export"], export)
            for path in setup["submounts"]:
                try:
                    os.stat(f"{export}{path}/.")  # a submount appears when it is visited
                except NotADirectoryError:
                    continue
        os.mkdir(f"{self.home}/export")
        linux.mount(export, f"{self.home}/export", None, linux.MS_BIND | linux.MS_REC)

    def _limit(self, limits: list[list[str]]) -> None:
        """Bound what it uses; what is in its tmpfs counts, as the kernel charges who writes."""
        for name, value in limits:
            if name == DISK_LIMIT:
                continue
            boot.write(f"{self.cgroup}/{name}", value)
            if name == "memory.max":
                boot.write(f"{self.cgroup}/memory.oom.group", "1")  # half an agent is none
                attempt(boot.write, f"{self.cgroup}/memory.swap.max", "0")  # some kernels have none

    def _limit_disk(self, limits: list[list[str]]) -> None:
        """Bound its use of the disk, which is there now. Raises OSError when there is none."""
        for name, value in limits:
            if name == DISK_LIMIT:
                boot.enable("io")
                boot.write(f"{self.cgroup}/{name}", f"{disk.number()} {value}")

    def when_fresh(self, action: Callable[[], object]) -> None:
        """Call `action` when what is started in the jail sees all that the host has changed."""
        if self._caches and self._fresh is not None:
            self._fresh.then(action)
        else:
            action()

    def _put_all(self, layer: str, files: list[Any]) -> None:
        """Files of corral's own; a fourth word says that the content is in base64."""
        for path, text, mode, *encoded in files:
            self._put(layer, path, binascii.a2b_base64(text) if encoded else text, mode)

    def _put(self, layer: str, path: str, content: str | bytes, mode: int) -> None:
        """A file of corral's own, in a layer between the toolbox and what programs change.

        Never written through the agent's tree, to which a disk may bring links of the agent's.
        """
        folder = layer
        for part in path.split("/")[1:-1]:
            folder += "/" + part
            if not os.path.isdir(folder):
                os.mkdir(folder)
                os.chown(folder, NOBODY, NOBODY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(layer + path, flags, 0o600)
        with open(fd, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fchown(fd, NOBODY, NOBODY)
            os.fchmod(fd, mode)

    def make(self) -> None:
        """Make the jail, still without a tree; its first process says on `socket` when it is."""
        os.mkdir(self.home, 0o700)
        os.chown(self.home, self.uid, self.uid)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        os.mkdir(self.cgroup)
        self._fresh = Fresh(self._loop, f"{self.home}/export", self.cgroup)
        self._pause = jail.make(self._identity, self.cgroup, self.home)
        try:
            jail.enter(self._identity, self._pause, self.cgroup, theirs)
        finally:
            theirs.close()
        self.socket = ours
        # Its loopback is its own: a program without capabilities may listen at port 80 of it.
        self.in_network(lambda: boot.write(_LOWEST_PORT, "0"))

    def identify(self, identity: dict[str, Any]) -> None:
        """Another host name, another machine id, and corral's files with these.

        They are written over where they are, below what programs change: a file that the agent has
        changed since stays as it is.
        """
        layer = f"{self.home}/own/files"
        self._put_all(layer, identity["files"])
        self._put(layer, "/etc/machine-id", identity["machine_id"] + "\n", 0o444)
        try:
            linux.set_hostname(self._pause, identity["hostname"])
        except ProcessLookupError:
            return  # the jail has ended

    def in_network(self, work: Callable[[], T]) -> T:
        """Do `work` in the jail's network namespace. Raises OSError when the jail has ended."""
        return linux.in_network(self._pause, work)

    def request(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one request to `jailed`, with descriptors. Raises OSError when it cannot take it."""
        assert self.socket is not None
        data, passed, long = json.dumps(message).encode(), list(fds or ()), -1
        try:
            if len(data) > MAX_REQUEST:
                # A packet is one block of kernel memory, and a megabyte of it may not be had.
                long = os.memfd_create("request", os.MFD_CLOEXEC)
                with open(long, "wb", closefd=False) as file:
                    file.write(data)
                data, passed = b"{}", [long, *passed]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))]
            self.socket.sendmsg([data], rights if passed else [])
        finally:
            if long >= 0:
                os.close(long)

    def reply(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message from `jailed`; None when it is gone or talks nonsense.

        Raises BlockingIOError when there is none yet.
        """
        assert self.socket is not None
        fds = array.array("i")
        try:
            data, ancillary, flags, _address = self.socket.recvmsg(
                MAX_REPLY, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise
        except OSError:
            return None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            message = json.loads(data) if not flags & socket.MSG_TRUNC else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            for fd in fds:
                os.close(fd)
            return None
        return message, list(fds)

    def close(self) -> None:
        """The jail has ended: let go of it."""
        assert self.socket is not None
        self.socket.close()
        if self._pause >= 0:
            os.close(self._pause)
            self._pause = -1
        self.abandon()
        self.groups.close()

    def abandon(self) -> None:
        """Nothing is started in it any more."""
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.close()

    def clear(self) -> None:
        """Let go of its mounts and folders, as far as there are any: no process of it is left.

        Takes as long as writing back what it wrote to a disk, at the pace that it is limited to.
        """
        for name in ("terminals", "root", "own", "export"):
            attempt(linux.unmount, f"{self.home}/{name}", linux.MNT_DETACH)
            attempt(os.rmdir, f"{self.home}/{name}")
        attempt(os.rmdir, self.home)

    def kill(self) -> None:
        """End every process of this agent."""
        if os.path.isdir(self.cgroup):  # else it never got that far
            boot.write(f"{self.cgroup}/cgroup.kill", "1")
