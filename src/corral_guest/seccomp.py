"""Seccomp filters: a small assembler from rules to classic BPF, and the filters corral uses.

A filter allows everything that no rule names. It kills what runs under another architecture's
system call table (on x86_64: 32-bit and x32), where the same numbers mean other calls. Used on the
host for virtiofsd and in the guest for jails. Sources: seccomp(2), linux/filter.h,
linux/seccomp.h, linux/audit.h, and the kernel's system call tables.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000

_LOAD, _AND, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); -1 where the architecture does not have the call
_NUMBERS = {
    "open": (2, -1),
    "socket": (41, 198),
    "creat": (85, -1),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "ioctl": (16, 29),
    "write": (1, 64),
    "pause": (34, -1),
    "ppoll": (-1, 73),
    "execve": (59, 221),
    "setgroups": (116, 159),
    "mknod": (133, -1),
    "openat": (257, 56),
    "mknodat": (259, 33),
    "fchmodat": (268, 53),
    "io_uring_setup": (425, 425),
    "openat2": (437, 437),
    "fchmodat2": (452, 452),
}

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
_LOW = 0xFFFFFFFF
_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000
_SET_ID_BITS = 0o6000
_CREATES = 0o100 | 0o20000000  # O_CREAT | __O_TMPFILE: only then does open(2) read a mode
_AF_VSOCK = 40
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h; x86 and ARM have no others


class Rule:
    """Answer system call `name` with `errno` when all conditions hold (none: always).

    A condition is (argument index, mask, value): (argument & mask) == value, or, with value None,
    (argument & mask) != 0. Only the low 32 bits of an argument are looked at.
    """

    __slots__ = ("conditions", "errno", "name")

    def __init__(self, name: str, errno: int, *conditions: tuple[int, int, int | None]) -> None:
        self.name = name
        self.errno = errno
        self.conditions = conditions


def assemble(rules: Iterable[Rule], machine: str | None = None) -> bytes:
    """The BPF program for `rules` on `machine` (default: this one) as the bytes bwrap reads."""
    machine = machine or os.uname().machine
    program = _head(machine)
    for rule in rules:
        number = _number(rule.name, machine)
        if number >= 0:
            program += _rule(rule, number)
    return _packed([*program, (_RETURN, 0, 0, ALLOW)])


def assemble_allowing(names: Iterable[str], machine: str | None = None) -> bytes:
    """The BPF program that allows these calls and answers every other with EPERM."""
    machine = machine or os.uname().machine
    program = _head(machine)
    for name in names:
        number = _number(name, machine)
        if number >= 0:
            program += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, ALLOW)]
    return _packed([*program, (_RETURN, 0, 0, ERRNO | EPERM)])


def _number(name: str, machine: str) -> int:
    return _NUMBERS[name][0 if machine == "x86_64" else 1]


def _packed(program: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _head(machine: str) -> list[tuple[int, int, int, int]]:
    """Kill what runs under another table; leaves the call's number in the accumulator."""
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, _X32_BIT), (_RETURN, 0, 0, KILL_PROCESS)]
    return program


def _rule(rule: Rule, number: int) -> list[tuple[int, int, int, int]]:
    body: list[tuple[int, int, int, int]] = []
    for position, (index, mask, value) in enumerate(rule.conditions):
        # What remains of this rule after this condition: later conditions, then the verdict.
        later = sum(3 for _ in rule.conditions[position + 1 :]) + 1
        body += [(_LOAD, 0, 0, _ARGUMENTS + 8 * index), (_AND, 0, 0, mask)]
        if value is None:
            body.append((_JEQ, later, 0, 0))
        else:
            body.append((_JEQ, 0, later, value))
    body.append((_RETURN, 0, 0, ERRNO | rule.errno))
    # Conditions overwrote the accumulator: load the number again for the next rule.
    return [(_JEQ, 0, len(body), number), *body, (_LOAD, 0, 0, _NUMBER)]


def export_filter(machine: str | None = None) -> bytes:
    """For a daemon that serves files to a guest.

    No set-id file and no device node reaches the host; setgroups, which a user namespace with one
    id refuses and QEMU's virtiofsd insists on, seems to succeed; openat2, whose mode a filter
    cannot see, is absent.
    """
    rules = [Rule("setgroups", 0)]
    for name, mode in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)):
        rules.append(Rule(name, EPERM, (mode, _SET_ID_BITS, None)))
    for name, mode in (("mknod", 1), ("mknodat", 2)):
        rules.append(Rule(name, EPERM, (mode, _SET_ID_BITS, None)))
        rules.append(Rule(name, EPERM, (mode, _S_IFMT, _S_IFCHR)))
        rules.append(Rule(name, EPERM, (mode, _S_IFMT, _S_IFBLK)))
    rules.append(Rule("creat", EPERM, (1, _SET_ID_BITS, None)))
    for name, flags in (("open", 1), ("openat", 2)):
        rules.append(Rule(name, EPERM, (flags, _CREATES, None), (flags + 1, _SET_ID_BITS, None)))
    rules.append(Rule("openat2", ENOSYS))
    rules.append(Rule("io_uring_setup", ENOSYS))
    return assemble(rules, machine)


def jail_filter(machine: str | None = None, *, io_uring: bool = False) -> bytes:
    """The floor of every jail, whatever profile is put on it.

    No AF_VSOCK, which ignores network namespaces and reaches the host. No typing into a terminal
    (TIOCSTI, and what a virtual console has of that kind). io_uring, which opens sockets behind a
    filter's back, is absent unless it was asked for.
    """
    rules = [
        Rule("socket", EAFNOSUPPORT, (0, _LOW, _AF_VSOCK)),
        Rule("ioctl", EPERM, (1, _LOW, _TIOCSTI)),
        Rule("ioctl", EPERM, (1, _LOW, _TIOCLINUX)),
    ]
    if not io_uring:
        rules.append(Rule("io_uring_setup", ENOSYS))
    return assemble(rules, machine)


def pause_filter(machine: str | None = None) -> bytes:
    """For `pause`, which is made before it is known what the agent may do, and is the agent's.

    It may be started, write its byte and wait; all else that somebody makes it do is refused.
    """
    return assemble_allowing(("execve", "write", "pause", "ppoll"), machine)


def as_memfd(program: bytes) -> int:
    """A descriptor from which bwrap reads `program`. One for each bwrap: the offset is shared."""
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(fd, program)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
