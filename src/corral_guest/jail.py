"""The making of one agent's jail, and the way into it.

bubblewrap makes the namespaces, /proc and /dev, and leaves `pause` in them, which does nothing. The
supervisor then forks into them: it has all of Python loaded already, and a new interpreter takes a
second to start under emulation. What it forked waits for the agent's tree (see tree.py), which may
come much later, in a machine that was saved and restored meanwhile; then it gives up its rights and
goes on as `jailed`.
"""

from __future__ import annotations

import binascii
import errno
import fcntl
import json
import os
import resource
import signal
import socket

from . import boot, jailed, linux, seccomp, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAUSE = "/corral/pause"  # in the base image; see corral.images.pause
PAUSE_IN_JAIL = "/run/corral/pause"
OPEN_FILES = (1024, 1 << 20)  # soft (select(2) handles no more) and hard, as systemd's default
# Once: what is done before a machine is saved is free.
_PAUSE_FILTER = seccomp.pause_filter()
_UP_FD, _INFO_FD, _BLOCK_FD, _FILTER_FD = 3, 4, 5, 6  # as bwrap and pause see them; 3 is pause's


def make(setup: dict[str, Any], cgroup: str, home: str) -> int:
    """Make a jail without a tree; returns a pidfd of its first process.

    setup: the agent's id in the guest, uid_map and gid_map. home: the agent's folder. Raises
    OSError with bubblewrap's words when it fails.
    """
    up_read, up_write = os.pipe2(os.O_CLOEXEC)
    info_read, info_write = os.pipe2(os.O_CLOEXEC)
    block_read, block_write = os.pipe2(os.O_CLOEXEC)
    complaints, complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # The agent may be able to trace `pause`, which is its own and was made before it is known what
    # the agent may do: so that can do nothing at all.
    filter_fd = seccomp.as_memfd(_PAUSE_FILTER)
    passed = {
        2: complain,
        _UP_FD: up_write,
        _INFO_FD: info_write,
        _BLOCK_FD: block_read,
        _FILTER_FD: filter_fd,
    }
    try:
        _start_bwrap(bwrap(home), passed, cgroup, setup["uid"])
        for fd in passed.values():
            os.close(fd)
        child = _child_pid(info_read)
        if child:
            pause = os.pidfd_open(child)
            for kind in ("uid_map", "gid_map"):
                boot.write(f"/proc/{child}/{kind}", setup[kind])
            os.write(block_write, b"x")
            if os.read(up_read, 1):
                return pause
            os.close(pause)
        raise OSError(0, f"the jail did not start: {_rest(complaints)}")
    finally:
        for fd in (up_read, info_read, block_write, complaints):
            os.close(fd)


def bwrap(home: str) -> list[str]:
    """bubblewrap's command line for a jail."""
    return [
        "/usr/bin/bwrap",
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--unshare-uts", "--unshare-cgroup", "--as-pid-1", "--die-with-parent"),
        *("--seccomp", str(_FILTER_FD), "--info-fd", str(_INFO_FD)),
        *("--userns-block-fd", str(_BLOCK_FD), "--proc", "/proc", "--dev", "/dev"),
        *("--bind", home, tree.AGENT, "--bind", tree.TOOLBOX, tree.TOOLBOX),
        *("--dir", tree.NEW, "--ro-bind", PAUSE, PAUSE_IN_JAIL, "--chdir", "/"),
        *("--", PAUSE_IN_JAIL),
    ]


def _start_bwrap(argv: list[str], passed: dict[int, int], cgroup: str, uid: int) -> None:
    if os.fork():
        return
    try:
        # Out of the way first, so that no descriptor is overwritten before it is copied.
        high = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for target, fd in passed.items()}
        for target, fd in high.items():
            os.dup2(fd, target, inheritable=True)
        os.setsid()
        _join(cgroup)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        _null_streams(0, 1)
        os.execve(argv[0], argv, {"PATH": "/usr/bin"})
    finally:
        os._exit(125)


def enter(setup: dict[str, Any], pause: int, cgroup: str, control: socket.socket) -> None:
    """Fork a process into the jail of the process `pause`, and serve `control` there."""
    if os.fork():
        return
    try:
        _null_streams(0, 1, 2)
        os.setsid()
        _join(cgroup)
        home = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        most = os.sysconf("SC_OPEN_MAX")  # of the supervisor, some of whose descriptors are high
        resource.setrlimit(resource.RLIMIT_NOFILE, OPEN_FILES)
        os.setgroups([])
        linux.enter_namespaces(pause)
        if not os.fork():  # only a child is in the PID namespace (setns(2))
            _serve(setup, control, home, most)
    finally:
        os._exit(125)


def _serve(setup: dict[str, Any], control: socket.socket, home: int, most: int) -> None:
    """Put the tree in place when it comes, give up all that is not the agent's, be `jailed`.

    home: a descriptor of cgroup.procs of the agent's own control group. most: descriptors that
    the supervisor may have.
    """
    signal.set_wakeup_fd(-1)
    # Out of the way first, so that neither overwrites the other.
    high = fcntl.fcntl(home, fcntl.F_DUPFD_CLOEXEC, 20)
    os.dup2(control.detach(), jailed.CONTROL_FD, inheritable=False)
    os.dup2(high, jailed.HOME_FD, inheritable=False)
    os.closerange(jailed.HOME_FD + 1, most)
    linux.set_name("corral")  # a `pkill -KILL python3` in the jail must not mean it
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    user, group = (0, 0) if setup["root"] else (setup["inside_uid"], setup["inside_gid"])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    filters = _furnish()
    if not setup["root"]:
        linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    for program in filters:
        linux.install_filter(program)
    jailed.main()


def _furnish() -> list[bytes]:
    """Wait for the host name, the tree and the filters, which are returned.

    Nothing of the agent's runs yet.
    """
    with socket.socket(fileno=os.dup(jailed.CONTROL_FD)) as control:
        control.send(b'{"op": "made"}')
        request, _fds = jailed.receive(control)
        if request is None:
            os._exit(0)  # the supervisor is gone
        try:
            socket.sethostname(request["hostname"])
            filters = [binascii.a2b_base64(program) for program in request["filters"]]
            if not filters:
                raise OSError(errno.EINVAL, "no filter")
            tree.furnish(request["tree"])
            return filters
        except OSError as error:
            control.send(json.dumps({"op": "lost", "errno": error.errno or 0}).encode())
            os._exit(125)


def _join(cgroup: str) -> None:
    boot.write(f"{cgroup}/cgroup.procs", "0")
    boot.write("/proc/self/oom_score_adj", "0")


def _null_streams(*numbers: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for number in numbers:
        os.dup2(null, number)


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
