"""The first process of a jail: a program of a few instructions that stays for ever.

It holds the jail's namespaces, into which the supervisor then forks. Any program would do; one of
an interpreter takes a second to start under emulation, and the base image has no other that waits.

It writes one byte to descriptor 3, which says that bubblewrap has finished the jail, and sleeps.
"""

from __future__ import annotations

import struct

# mov eax, 1 (write); mov edi, 3; lea rsi, [rip+0x10]; mov edx, 1; syscall
# again: mov eax, 34 (pause); syscall; jmp again; the byte "u"
_X86_64 = bytes.fromhex(
    "b801000000 bf03000000 488d3510000000 ba01000000 0f05 b822000000 0f05 ebf7 75"
)
# mov x0, 3; adr x1, 44; mov x2, 1; mov x8, 64 (write); svc 0
# again: mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b again; the byte "u"
_AARCH64 = bytes.fromhex(
    "600080d2 61010010 220080d2 080880d2 010000d4"
    "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17 75"
)
_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}  # e_machine, elf.h

_ADDRESS = 0x400000
_EXECUTABLE, _LOAD, _READ_EXECUTE, _PAGE = 2, 1, 5, 0x1000


def program(machine: str) -> bytes:
    """The program as a static ELF file for `machine`, as uname(2) names it."""
    number, code = _MACHINES[machine]
    header, segment = 64, 56
    entry = _ADDRESS + header + segment
    size = header + segment + len(code)
    return b"".join(
        (
            b"\x7fELF\x02\x01\x01" + bytes(9),
            struct.pack("<HHIQQQI", _EXECUTABLE, number, 1, entry, header, 0, 0),
            struct.pack("<HHHHHH", header, segment, 1, 0, 0, 0),
            struct.pack(
                "<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE
            ),
            code,
        )
    )
