"""Seccomp profiles of users, compiled and put on a process: nothing is opened that they close.

These need no machine: the filters are the same on a jail of this host and in a guest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from corral.jail.seccomp.filters import Filters, filters
from corral.jail.seccomp.target import Target

HERE = Target(machine=os.uname().machine, kernel=(6, 1))
GETPRIORITY = {"x86_64": 140, "aarch64": 141}[HERE.machine]  # harms nothing
IO_URING_SETUP, ENOSYS = 425, 38

Rule = dict[str, object]


def made(folder: Path, *rules: Rule, default: str = "SCMP_ACT_ALLOW") -> Filters:
    file = folder / "profile.json"
    file.write_text(json.dumps({"defaultAction": default, "syscalls": rules}))
    return filters(str(file), "errno", HERE)


def refusing(errno: int, *conditions: tuple[int, str, int]) -> Rule:
    args = [{"index": n, "op": f"SCMP_CMP_{op}", "value": value} for n, op, value in conditions]
    return {
        "names": ["getpriority"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno,
        "args": args,
    }


def tried(programs: tuple[bytes, ...], calls: Sequence[tuple[int, ...]]) -> list[int]:
    """The errno of each call (number, arguments) in a process under these filters."""
    code = f"""
import ctypes
from corral_guest import linux
libc = ctypes.CDLL(None, use_errno=True)
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
for program in {programs!r}:
    linux.install_filter(program)
for words in {list(calls)!r}:
    ctypes.set_errno(0)
    libc.syscall(*map(ctypes.c_long, words))
    print(ctypes.get_errno())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_the_kernel_refuses_what_any_rule_of_a_profile_refuses(tmp_path: Path) -> None:
    """Of all values of an argument, and where several rules hold: the strictest counts."""
    programs = made(
        tmp_path,
        {**refusing(0, (0, "NE", 40)), "action": "SCMP_ACT_ALLOW"},
        refusing(100, (0, "LT", (1 << 32) + 1)),
        refusing(101, (0, "LE", 0)),
        refusing(102, (0, "EQ", (1 << 33) + 40), (1, "GT", 2)),
    ).programs
    wide = 1 << 33
    expected = {
        **{(number, 0): 100 for number in (0, 1, 2, 40, 1 << 31, (1 << 32) - 1, 1 << 32)},
        (wide + 40, 3): 102,
        (wide + 40, 1 << 40): 102,
    }
    calls = [(GETPRIORITY, *arguments) for arguments in expected]
    assert tried(programs, calls) == list(expected.values())
    # The controls: what no rule refuses takes place (there is no such kind of process).
    assert (
        set(tried(programs, [(GETPRIORITY, wide + n, 0) for n in (1, 39, 40)])) & {100, 102}
        == set()
    )
    assert set(tried((), calls)) & {100, 101, 102} == set()


def test_a_profile_that_does_not_name_io_uring_opens_none(tmp_path: Path) -> None:
    """Its operations pass no filter: sockets of AF_VSOCK, files, connections."""
    ring = [(IO_URING_SETUP, 1, 0)]
    listed: Rule = {"names": ["socket", "connect", "mount"], "action": "SCMP_ACT_ERRNO"}
    for rules in ([], [listed]):
        assert tried(made(tmp_path, *rules).programs, ring) == [ENOSYS]
    named: Rule = {"names": ["io_uring_setup"], "action": "SCMP_ACT_ALLOW"}
    floor = made(tmp_path, named).floor
    assert tried((floor,), ring) == tried((), ring), "the control: this kernel's own answer"
