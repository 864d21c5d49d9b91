"""An interpreter of classic BPF as seccomp uses it: what a filter answers to a call.

It follows bpf(4) of the BSDs and Documentation/networking/filter.rst in the Linux sources, as far
as filters go; it refuses a program that the kernel would refuse.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, LOG = "allow", "kill", "log"


def run(program: bytes, data: bytes) -> int:
    """What a filter returns for a struct seccomp_data."""
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    for _ in steps:  # jumps go forward only
        code, when_true, when_false, k = steps[position]
        position += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                assert k % 4 == 0 and k + 4 <= len(data)
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x05:  # BPF_JMP | BPF_JA
                position += k
            case 0x25:
                position += when_true if accumulator > k else when_false
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            case 0x06:  # BPF_RET | BPF_K
                return int(k)
            case 0x15:
                position += when_true if accumulator == k else when_false
            case 0x35:
                position += when_true if accumulator >= k else when_false
            case 0x45:
                position += when_true if accumulator & k else when_false
            case _:
                raise AssertionError(f"{code:#x} is not used by these filters")
    raise AssertionError("the program has no end")


def ask_number(
    program: bytes, machine: str, number: int, arguments: Sequence[int] = (), arch: int = -1
) -> str | int:
    """ALLOW, KILL, LOG, or the errno that the caller gets."""
    values = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    audit = ARCHITECTURES[machine] if arch < 0 else arch
    verdict = run(program, struct.pack("=IIQ6Q", number, audit, 0x7F0000001000, *values))
    known = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x7FFC0000: LOG}
    if verdict in known:
        return known[verdict]
    assert verdict & 0xFFFF0000 == 0x00050000
    return verdict & 0xFFFF
