"""The seccomp filters, run by an interpreter of classic BPF: what they refuse and what not."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_guest import seccomp
from tests.support.bpf import ALLOW, KILL, ask_number

MACHINES = ("x86_64", "aarch64")
FOREIGN = {"i386": 0x40000003, "arm": 0x40000028, "aarch64be": 0x800000B7, "none": 0}

# System call numbers from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl,
# include/uapi/asm-generic/unistd.h), written down here a second time on purpose.
CALLS = {
    "x86_64": {
        **{"read": 0, "open": 2, "socket": 41, "execve": 59, "creat": 85, "chmod": 90},
        **{"fchmod": 91, "setgroups": 116, "mknod": 133, "openat": 257, "mknodat": 259},
        **{"fchmodat": 268, "io_uring_setup": 425, "openat2": 437, "fchmodat2": 452},
        **{"write": 1, "ioctl": 16, "pause": 34},
    },
    "aarch64": {
        **{"read": 63, "socket": 198, "execve": 221, "fchmod": 52, "setgroups": 159},
        **{"openat": 56, "mknodat": 33, "fchmodat": 53, "io_uring_setup": 425},
        **{"openat2": 437, "fchmodat2": 452, "write": 64, "ioctl": 29, "ppoll": 73},
    },
}

# Argument positions of modes, and of flags that decide whether there is a mode.
CHMODS = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
MKNODS = {"mknod": 1, "mknodat": 2}
OPENS = {"open": 1, "openat": 2}
O_TMPFILE = 0o20000000 | os.O_DIRECTORY


def ask(
    program: bytes, machine: str, call: str | int, arguments: Sequence[int] = (), arch: int = -1
) -> str | int:
    """ALLOW, KILL, or the errno that the caller gets."""
    number = CALLS[machine][call] if isinstance(call, str) else call
    return ask_number(program, machine, number, arguments, arch)


def call_with(machine: str, position: int, value: int) -> list[int]:
    """Arguments with one of interest; the others have every bit set."""
    return [value if index == position else (1 << 64) - 1 for index in range(6)]


FILTERS = {"export": seccomp.export_filter, "jail": seccomp.jail_filter}
both_filters = pytest.mark.parametrize("name", FILTERS)
both_machines = pytest.mark.parametrize("machine", MACHINES)


@both_filters
@both_machines
def test_the_kernel_would_take_the_program(name: str, machine: str) -> None:
    """As bpf_check_classic() does: known codes, jumps that land inside, a return at the end."""
    steps = list(struct.iter_unpack("=HBBI", FILTERS[name](machine)))
    assert len(steps) <= 4096
    for index, (code, when_true, when_false, _k) in enumerate(steps):
        if code & 7 == 5:
            assert index + 1 + max(when_true, when_false) < len(steps)
    assert steps[-1][0] == 0x06


@both_filters
@both_machines
@pytest.mark.parametrize("arch", FOREIGN.values(), ids=FOREIGN)
def test_calls_by_another_architectures_table_kill(name: str, machine: str, arch: int) -> None:
    program = FILTERS[name](machine)
    for number in (0, 41, 198, 359):
        assert ask(program, machine, number, arch=arch) == KILL


@both_filters
def test_x32_calls_kill(name: str) -> None:
    program = FILTERS[name]("x86_64")
    for number in (0x40000000, 0x40000000 | 41, 0x40000000 | 512, 0xFFFFFFFF):
        assert ask(program, "x86_64", number) == KILL


@both_filters
def test_aarch64_has_no_x32(name: str) -> None:
    assert ask(FILTERS[name]("aarch64"), "aarch64", 0x40000000 | 41) == ALLOW


@both_filters
@given(machine=st.sampled_from(MACHINES), data=st.data())
def test_calls_that_no_rule_names_are_allowed(name: str, machine: str, data: st.DataObject) -> None:
    named = {number for call, number in CALLS[machine].items() if call not in ("read", "execve")}
    number = data.draw(st.integers(0, 0x3FFFFFFF).filter(lambda n: n not in named))
    arguments = data.draw(st.lists(st.integers(0, (1 << 64) - 1), max_size=6))
    assert ask(FILTERS[name](machine), machine, number, arguments) == ALLOW


# The jail's


@both_machines
@given(
    family=st.one_of(st.integers(0, 60), st.integers(0, (1 << 64) - 1)),
    high=st.integers(0, (1 << 32) - 1),
)
def test_a_jail_has_every_socket_but_vsock(machine: str, family: int, high: int) -> None:
    """The kernel takes an int: what is above 32 bits does not make it another family."""
    program = seccomp.jail_filter(machine)
    low = family & 0xFFFFFFFF
    expected = 97 if low == 40 else ALLOW
    assert ask(program, machine, "socket", [low | high << 32, 1, 0]) == expected


@both_machines
def test_a_jail_has_no_vsock_and_no_io_uring(machine: str) -> None:
    program = seccomp.jail_filter(machine)
    assert ask(program, machine, "socket", [40 | 0xABC << 32, 1]) == 97  # EAFNOSUPPORT
    assert ask(program, machine, "socket", [1, 1]) == ALLOW
    assert ask(program, machine, "io_uring_setup", [8, 0]) == 38  # ENOSYS
    for call in ("setgroups", "fchmod", "openat2"):
        assert ask(program, machine, call, [6, 0o6777]) == ALLOW


# The file servers'


@both_machines
def test_setgroups_seems_to_succeed(machine: str) -> None:
    assert ask(seccomp.export_filter(machine), machine, "setgroups", [0, 0]) == 0


@both_machines
@pytest.mark.parametrize("call", [*CHMODS, *MKNODS, "creat", *OPENS])
@given(mode=st.integers(0, 0o7777), garbage=st.integers(0, (1 << 32) - 1))
def test_no_set_id_bit_reaches_the_host(machine: str, call: str, mode: int, garbage: int) -> None:
    if call not in CALLS[machine]:
        return  # aarch64 has only the calls that end in -at
    position = {**CHMODS, **MKNODS, "creat": 1}.get(call, OPENS.get(call, 0) + 1)
    arguments = call_with(machine, position, mode | garbage << 32)
    if call in MKNODS:
        arguments[position] |= stat.S_IFREG
    if call in OPENS:
        arguments[OPENS[call]] = os.O_CREAT | os.O_WRONLY
    expected = 1 if mode & 0o6000 else ALLOW
    assert ask(seccomp.export_filter(machine), machine, call, arguments) == expected


@both_machines
@pytest.mark.parametrize("call", MKNODS)
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (stat.S_IFCHR, 1),
        (stat.S_IFBLK, 1),
        (stat.S_IFREG, ALLOW),
        (stat.S_IFIFO, ALLOW),
        (stat.S_IFSOCK, ALLOW),
        (0, ALLOW),
    ],
)
def test_no_device_node_reaches_the_host(
    machine: str, call: str, kind: int, verdict: str | int
) -> None:
    if call not in CALLS[machine]:
        return
    program = seccomp.export_filter(machine)
    for mode in (0o600, 0o777, 0):
        arguments = call_with(machine, MKNODS[call], kind | mode)
        assert ask(program, machine, call, arguments) == verdict


@both_machines
@pytest.mark.parametrize("call", OPENS)
@given(mode=st.integers(0, (1 << 64) - 1))
def test_a_mode_counts_only_where_a_file_is_made(machine: str, call: str, mode: int) -> None:
    if call not in CALLS[machine]:
        return
    program = seccomp.export_filter(machine)
    flags, position = OPENS[call], OPENS[call] + 1
    arguments = call_with(machine, position, mode)
    for plain in (os.O_RDONLY, os.O_RDWR | os.O_TRUNC, os.O_PATH | os.O_DIRECTORY):
        arguments[flags] = plain
        assert ask(program, machine, call, arguments) == ALLOW
    for making in (os.O_CREAT, os.O_CREAT | os.O_EXCL, O_TMPFILE | os.O_RDWR):
        arguments[flags] = making
        assert ask(program, machine, call, arguments) == (1 if mode & 0o6000 else ALLOW)


@both_machines
def test_calls_whose_mode_a_filter_cannot_see_are_absent(machine: str) -> None:
    program = seccomp.export_filter(machine)
    for call in ("openat2", "io_uring_setup"):
        assert ask(program, machine, call) == 38  # ENOSYS: programs then use the older call


def test_every_named_call_has_its_number_in_the_kernels_table() -> None:
    for name, numbers in seccomp._NUMBERS.items():
        for machine, number in zip(MACHINES, numbers, strict=True):
            assert number == CALLS[machine].get(name, -1), (name, machine)


@both_machines
def test_a_jail_types_into_no_terminal(machine: str) -> None:
    """TIOCSTI and TIOCLINUX; a command is 32 bits wide, whatever is above them."""
    program = seccomp.jail_filter(machine)
    for command in (0x5412, 0x541C, 0x5412 | 1 << 32, 0x5412 | 0xFFFFFFFF << 32):
        assert ask(program, machine, "ioctl", [0, command]) == 1
    for command in (0x5401, 0x5413, 0):  # TCGETS, TIOCGWINSZ
        assert ask(program, machine, "ioctl", [0, command]) == ALLOW


@both_machines
def test_io_uring_is_there_where_it_is_asked_for(machine: str) -> None:
    assert ask(seccomp.jail_filter(machine), machine, "io_uring_setup") == 38
    program = seccomp.jail_filter(machine, io_uring=True)
    assert ask(program, machine, "io_uring_setup") == ALLOW
    assert ask(program, machine, "socket", [40]) == 97


@both_machines
def test_what_holds_a_jail_open_can_do_nothing_else(machine: str) -> None:
    program = seccomp.pause_filter(machine)
    allowed = [
        CALLS[machine][n] for n in ("execve", "write", "pause", "ppoll") if n in CALLS[machine]
    ]
    for number in range(600):
        assert ask(program, machine, number) == (ALLOW if number in allowed else 1)


# With the real kernel


def test_bubblewrap_reads_the_whole_program_from_a_descriptor() -> None:
    program = seccomp.jail_filter()
    fd = seccomp.as_memfd(program)
    try:
        assert os.read(fd, 1 << 16) == program
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


CHECK = """
import errno, os, socket, sys
from corral_guest import linux, seccomp
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
linux.install_filter(getattr(seccomp, sys.argv[1])())
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None
"""


def in_a_filter(name: str, code: str, folder: str) -> str:
    import subprocess
    import sys

    argv = [sys.executable, "-c", CHECK + code, name]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=True)
    return done.stdout


def test_the_kernel_refuses_what_the_interpreter_says(tmp_path: object) -> None:
    code = (
        "open('f', 'w').close()\n"
        "print(refused(os.chmod, 'f', 0o4755), refused(os.chmod, 'f', 0o755),"
        " refused(os.mknod, 'd', 0o020600, 0), refused(os.mkfifo, 'p', 0o600),"
        " refused(os.open, 'g', os.O_CREAT | os.O_WRONLY, 0o2755),"
        " refused(os.open, 'h', os.O_CREAT | os.O_WRONLY, 0o755))"
    )
    answer = in_a_filter("export_filter", code, str(tmp_path))
    assert answer.split() == ["EPERM", "None", "EPERM", "None", "EPERM", "None"]


def test_the_kernel_lets_a_jail_have_every_socket_but_vsock(tmp_path: object) -> None:
    code = (
        "print(refused(socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM),"
        " refused(socket.socket, socket.AF_UNIX), refused(socket.socket, socket.AF_INET))"
    )
    assert in_a_filter("jail_filter", code, str(tmp_path)).split() == [
        *("EAFNOSUPPORT", "None", "None")
    ]
