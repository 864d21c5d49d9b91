"""The Linux calls that Python's standard library lacks, through libc.

Numbers are from the kernel's UAPI headers (linux/mount.h, linux/sched.h, linux/random.h); each call
raises OSError with the file concerned.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
RB_POWER_OFF = 0x4321FEDC  # linux/reboot.h

_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OPEN_TREE, _MOVE_MOUNT = 428, 429  # of every architecture
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC  # linux/mount.h
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100  # linux/fcntl.h
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_SYMLINKS = 4, 16  # linux/mount.h

# linux/random.h
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(number, os.fsencode(new), os.fsencode(old)), new)


def open_tree(path: str) -> int:
    """open_tree(2): a descriptor of a copy of the mounts at `path` and below, attached nowhere."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    fd: int = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    _check(fd, path)
    return fd


def move_mount(tree: int, target: str) -> None:
    """move_mount(2): attach what `open_tree` has returned at the path `target`."""
    path, flags = os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS
    _check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, path, flags), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def set_name(name: str) -> None:
    """Name this thread as ps, pkill and killall show it (15 bytes; PR_SET_NAME in prctl(2))."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0), "prctl")


def load_module(path: str) -> None:
    """finit_module(2) without parameters. A module that is loaded already is no error."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.syscall(_FINIT_MODULE[os.uname().machine], fd, b"", 0), path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)


def reboot(command: int) -> None:
    """reboot(2)."""
    _check(_libc.reboot(ctypes.c_int(command)), "reboot")


def add_entropy(seed: bytes) -> None:
    """Credit `seed` to the kernel's random number generator and have it used at once (random(4)).

    Writing to /dev/urandom would not: what is read next would not depend on it.
    """
    fd = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        message = struct.pack(f"ii{len(seed)}s", 8 * len(seed), len(seed), seed)
        fcntl.ioctl(fd, _RNDADDENTROPY, message)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def enter_namespaces(pidfd: int) -> None:
    """setns(2): join all namespaces of a process (the PID namespace is for children)."""
    kinds = (CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS)
    flags = CLONE_NEWCGROUP
    for kind in kinds:
        flags |= kind
    _check(_libc.setns(pidfd, flags), "setns")


def set_hostname(pidfd: int, name: str) -> None:
    """Set the host name in a process's UTS namespace; this process comes back to its own."""
    own = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(pidfd, CLONE_NEWUTS), "setns")
        try:
            encoded = name.encode()
            _check(_libc.sethostname(encoded, len(encoded)), "sethostname")
        finally:
            _check(_libc.setns(own, CLONE_NEWUTS), "setns")
    finally:
        os.close(own)


def in_network(pidfd: int, work: Callable[[], T]) -> T:
    """Do `work` in a process's network namespace; this process comes back to its own.

    Sockets that are made there stay there.
    """
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(pidfd, CLONE_NEWNET), "setns")
        try:
            return work()
        finally:
            if _libc.setns(own, CLONE_NEWNET) != 0:  # nothing may go on from here
                raise RuntimeError("the way back to the own network namespace is lost")
    finally:
        os.close(own)


def drop_capabilities() -> None:
    """capset(2) and the bounding set: none, now and for all children."""
    number = 0
    while _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) == 0:
        number += 1  # until EINVAL: the kernel knows no more of them
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


class _Program(ctypes.Structure):  # struct sock_fprog, linux/filter.h
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install_filter(program: bytes) -> None:
    """seccomp(2), mode filter, for this process and all its children."""
    filter_ = _Program(len(program) // 8, program)
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(filter_), 0, 0), "seccomp")
