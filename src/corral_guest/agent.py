"""One agent: its folder tree, its jail, and the socket to the jail's first process.

What comes from the jail (`jailed`) is as hostile as the agent: sizes and types are checked.
"""

from __future__ import annotations

import array
import json
import os
import socket

from . import boot, linux, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TOOLBOX = "/toolbox"
AGENTS = "/agents"
RUNTIME = "/run/corral"  # where a jail sees the base image, from which `jailed` runs
NOBODY = 65534  # what ids outside a user namespace's map look like (the kernel's overflowuid)
MAX_REPLY = 4096  # bytes; `jailed` says little
_SO_SNDBUFFORCE = 32
_SEND_BUFFER = 4 << 20


def mount_share(events: boot.DeviceEvents, share: dict[str, Any], target: str) -> None:
    """Mount a share by its tag below `target` once its device is there."""
    os.makedirs(target, exist_ok=True)
    kind, options = share["kind"], share["options"]
    flags = linux.MS_NOSUID | linux.MS_NODEV
    events.retry(lambda: linux.mount(share["tag"], target, kind, flags, options), 20)


class Agent:
    """A jail: `request` asks its first process for something, `reply` is what that says."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.number: int = setup["number"]
        self._setup = setup
        self.uid: int = setup["uid"]
        self.home = f"{AGENTS}/{self.number}"
        self.cgroup = f"{boot.CGROUP_ROOT}/agent-{self.number}"
        self.socket: socket.socket | None = None
        self.pid = 0
        self.up_request: int | None = None  # who asked for it, until the jail is up

    def prepare(self, events: boot.DeviceEvents) -> None:
        """Mount the agent's export, and a writable layer of its own over the toolbox."""
        os.makedirs(AGENTS, 0o711, exist_ok=True)
        os.mkdir(self.home, 0o700)
        os.chown(self.home, self.uid, self.uid)
        mount_share(events, self._setup["export"], f"{self.home}/export")
        for part in self._setup["parts"]:
            os.stat(f"{self.home}/export{part}/.")  # a submount appears when it is visited
        layers = f"{self.home}/layers"
        os.mkdir(layers)
        linux.mount("tmpfs", layers, "tmpfs", linux.MS_NODEV | linux.MS_NOSUID, "mode=755")
        for folder in ("upper", "work"):
            os.mkdir(f"{layers}/{folder}")
        os.chown(f"{layers}/upper", NOBODY, NOBODY)
        os.mkdir(f"{self.home}/root")
        linux.mount(
            "overlay",
            f"{self.home}/root",
            "overlay",
            linux.MS_NODEV | linux.MS_NOSUID,
            f"lowerdir={TOOLBOX},upperdir={layers}/upper,workdir={layers}/work,redirect_dir=on",
        )
        for path, text, mode in self._setup["files"]:
            self._put(path, text, mode)

    def _put(self, path: str, text: str, mode: int) -> None:
        target = f"{self.home}/root{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.unlink(target)
        with open(target, "w") as file:
            file.write(text)
        os.chown(target, NOBODY, NOBODY)
        os.chmod(target, mode)

    def start(self) -> None:
        """Start the jail; `jailed` answers on `socket` when it is up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        ours.setblocking(False)
        os.mkdir(self.cgroup)
        for name, value in self._setup["limits"]:
            boot.write(f"{self.cgroup}/{name}", value)
        info_read, info_write = os.pipe2(os.O_CLOEXEC)
        complaints, complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        block_read, block_write = os.pipe2(os.O_CLOEXEC)
        filter_fd = seccomp.as_memfd(seccomp.jail_filter())
        # bwrap sees these numbers: the control socket is `jailed`'s descriptor 3.
        passed = {2: complain, 3: theirs.fileno(), 4: info_write, 5: block_read, 6: filter_fd}
        self.pid = self._fork([*self._bwrap(info=4, block=5, filter_fd=6)], passed)
        for fd in (complain, info_write, block_read, filter_fd):
            os.close(fd)
        theirs.close()
        try:
            child = _child_pid(info_read)
            if not child:
                raise OSError(0, f"the jail did not start: {_rest(complaints)}")
            for kind in ("uid_map", "gid_map"):
                boot.write(f"/proc/{child}/{kind}", self._setup[kind])
            os.write(block_write, b"x")
        finally:
            os.close(info_read)
            os.close(block_write)
            os.close(complaints)
        self.socket = ours

    def _fork(self, argv: list[str], passed: dict[int, int]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            # Out of the way first, so that no descriptor is overwritten before it is copied.
            high = {target: _above(fd) for target, fd in passed.items()}
            for target, fd in high.items():
                os.dup2(fd, target, inheritable=True)
            os.setsid()
            boot.write(f"{self.cgroup}/cgroup.procs", "0")
            boot.write("/proc/self/oom_score_adj", "0")
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.execve(argv[0], argv, {"PATH": "/usr/bin"})
        finally:
            os._exit(125)

    def _bwrap(self, *, info: int, block: int, filter_fd: int) -> list[str]:
        setup = self._setup
        argv = [
            "/usr/bin/bwrap",
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
            *("--unshare-uts", "--unshare-cgroup", "--hostname", setup["hostname"]),
            *("--as-pid-1", "--die-with-parent", "--seccomp", str(filter_fd)),
            *("--info-fd", str(info), "--userns-block-fd", str(block)),
        ]
        if setup["root"]:
            argv += ["--cap-add", "ALL"]
        for step in setup["tree"]:
            argv += [
                argument.replace("@root", f"{self.home}/root")
                .replace("@export", f"{self.home}/export")
                .replace("@toolbox", TOOLBOX)
                for argument in step
            ]
        loader, folders = _runtime()
        for folder in ("usr", "lib", "lib64"):
            if os.path.isdir(f"/{folder}") and not os.path.islink(f"/{folder}"):
                argv += ["--ro-bind", f"/{folder}", f"{RUNTIME}/{folder}"]
        return [
            *argv,
            *("--chdir", "/", "--"),
            RUNTIME + loader,
            *("--library-path", ":".join(RUNTIME + folder for folder in folders)),
            f"{RUNTIME}/usr/bin/python3",
            *("-I", "-S", "-E", "-c", "from corral_guest import jailed; jailed.main()"),
        ]

    def request(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one request to `jailed`, with descriptors. Raises OSError when it cannot take it."""
        assert self.socket is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([json.dumps(message).encode()], rights)

    def reply(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message from `jailed`; None when it is gone or talks nonsense."""
        assert self.socket is not None
        fds = array.array("i")
        try:
            data, ancillary, flags, _address = self.socket.recvmsg(
                MAX_REPLY, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
            )
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

    def kill(self) -> None:
        """End every process of this agent."""
        if os.path.isdir(self.cgroup):  # else it never got that far
            boot.write(f"{self.cgroup}/cgroup.kill", "1")


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)


def _child_pid(fd: int) -> int:
    """The pid that bwrap writes to its --info-fd (`{"child-pid": 12, ...`); 0 when it ended."""
    text = b""
    while b"}" not in text:  # to the end: bwrap must not meet a closed pipe
        part = os.read(fd, 4096)
        if not part:
            return 0
        text += part
    return int(text.split(b":")[1].split(b",")[0].split(b"}")[0])


def _rest(fd: int) -> str:
    try:
        return os.read(fd, 4096).decode(errors="replace").strip()
    except BlockingIOError:
        return "bwrap said nothing"


def _runtime() -> tuple[str, list[str]]:
    """The loader and the library folders that this very process runs with."""
    with open("/proc/self/maps") as file:
        paths = {line.rstrip("\n").split(" ", 5)[-1].strip() for line in file}
    libraries = {path for path in paths if ".so" in path and "lib-dynload" not in path}
    loader = next(path for path in libraries if os.path.basename(path).startswith("ld-"))
    return loader, sorted({os.path.dirname(path) for path in libraries})
