"""From a table to the program that the kernel runs: classic BPF, as seccomp(2) takes it.

Pure but for the numbers of calls, which libseccomp knows. What a program answers is what
`table.answer` says, for every value of every argument: libseccomp 2.5 makes programs of several
conditions on one argument that allow what no rule allows, so its compiler is not used. Sources:
linux/filter.h, linux/seccomp.h, linux/audit.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import assert_never

from ...errors import ConfigError
from .library import number_of
from .profile import Argument
from .table import Answer, Entry, Kind, Table, ruling

Step = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
Code = tuple[Step, ...]

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _EQUAL, _GREATER, _NOT_LESS = 0x05, 0x15, 0x25, 0x35
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data, of which both are
_HIGH = 4  # little-endian: the lower half of an argument comes first
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_FARTHEST = 255  # steps that a jump with a condition leads
_LONGEST = 4096  # steps; BPF_MAXINSNS in linux/bpf_common.h

_ACTIONS = {
    Kind.KILL_PROCESS: 0x80000000,
    Kind.KILL_THREAD: 0x00000000,
    Kind.TRAP: 0x00030000,
    Kind.ERRNO: 0x00050000,
    Kind.LOG: 0x7FFC0000,
    Kind.ALLOW: 0x7FFF0000,
}
_KILL = Answer(Kind.KILL_PROCESS)


def compile_table(where: Table, machine: str) -> bytes:
    """The program for `machine`. What runs under another table of system calls is killed.

    Raises ConfigError, HostError.
    """
    starts = {0: _return(where.default)}
    for number, entries in sorted(_by_number(where, machine).items()):
        starts[number] = _of_call(ruling(entries), where.default)
        starts.setdefault(number + 1, _return(where.default))
    if machine == "x86_64":
        starts[_X32_BIT] = _return(_KILL)
    program = (
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        *_return(_KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_search(_joined(starts)),
    )
    if len(program) > _LONGEST:
        raise ConfigError(
            f"the seccomp profile becomes a program of {len(program)} steps, and the kernel takes "
            f"{_LONGEST}.",
            hint="Write fewer conditions on arguments, or split it: of several profiles all hold.",
        )
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _by_number(where: Table, machine: str) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for entry in where.entries:
        number = number_of(entry.name, machine)
        if number is None and where.default.allows and not entry.answer.allows:
            raise ConfigError(
                f"the seccomp profile refuses “{entry.name[:40]}”, a call that this libseccomp "
                "does not know.",
                hint="Write a profile that allows by name and refuses the rest, or update "
                "libseccomp.",
            )
        # What nobody knows gets the default, which is as strict; what is not on this machine
        # nobody can call.
        if number is not None and number >= 0:
            found.setdefault(number, []).append(entry)
    return found


def _joined(starts: dict[int, Code]) -> list[tuple[int, Code]]:
    """(first number, code), in order, neighbours with the same code as one."""
    found: list[tuple[int, Code]] = []
    for first, code in sorted(starts.items()):
        if not found or found[-1][1] != code:
            found.append((first, code))
    return found


def _search(ranges: Sequence[tuple[int, Code]]) -> Code:
    """A binary search for the number in the accumulator. Every code ends by returning."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle][0]
    if len(below) <= _FARTHEST:
        return ((_NOT_LESS, len(below), 0, pivot), *below, *above)
    return ((_NOT_LESS, 0, 1, pivot), (_JUMP, 0, 0, len(below)), *below, *above)


def _of_call(entries: Sequence[Entry], default: Answer) -> Code:
    code: Code = ()
    for entry in entries:
        part = _return(entry.answer)
        for condition in reversed(entry.conditions):
            part = (*_test(condition, len(part)), *part)
        code = (*code, *part)
    return (*code, *_return(default))


def _return(given: Answer) -> Code:
    return ((_RETURN, 0, 0, _ACTIONS[given.kind] | given.errno),)


def _test(condition: Argument, skip: int) -> Code:
    """Goes on behind its end if the condition holds, else `skip` steps behind that."""
    low = _ARGUMENTS + 8 * condition.index
    load_high, load_low = (_LOAD, 0, 0, low + _HIGH), (_LOAD, 0, 0, low)
    high_value, low_value = divmod(condition.value, 1 << 32)
    match condition.op:
        case "SCMP_CMP_EQ":
            differs = (_EQUAL, 0, skip + 2, high_value)
            return (load_high, differs, load_low, (_EQUAL, 0, skip, low_value))
        case "SCMP_CMP_NE":
            differs = (_EQUAL, 0, 2, high_value)
            return (load_high, differs, load_low, (_EQUAL, skip, 0, low_value))
        case "SCMP_CMP_GE" | "SCMP_CMP_GT":
            last = _NOT_LESS if condition.op == "SCMP_CMP_GE" else _GREATER
            above, below = (_GREATER, 3, 0, high_value), (_EQUAL, 0, skip + 2, high_value)
            return (load_high, above, below, load_low, (last, 0, skip, low_value))
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            last = _NOT_LESS if condition.op == "SCMP_CMP_LT" else _GREATER
            above, below = (_GREATER, skip + 3, 0, high_value), (_EQUAL, 0, 2, high_value)
            return (load_high, above, below, load_low, (last, skip, 0, low_value))
        case "SCMP_CMP_MASKED_EQ":
            high_wanted, low_wanted = divmod(condition.valueTwo, 1 << 32)
            return (
                *(load_high, (_AND, 0, 0, high_value), (_EQUAL, 0, skip + 3, high_wanted)),
                *(load_low, (_AND, 0, 0, low_value), (_EQUAL, 0, skip, low_wanted)),
            )
        case _:
            assert_never(condition.op)
