"""Is KVM there, may we use it, and does it run instructions on the processor?

On some nested hosts /dev/kvm exists and emulates every instruction, which is slower than QEMU's
own emulator. So it is measured: a guest of one page counts down in a loop. Emulated, 1,000 rounds
take about 2 ms; on the processor, a microsecond and the cost of one exit.

The calls and structures are those of Documentation/virt/kvm/api.rst in the Linux sources.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Literal

import msgspec

KvmState = Literal["works", "absent", "denied", "emulates", "error", "unmeasured"]

ROUNDS = 1000
ATTEMPTS = 3  # the best one counts: the scheduler may have taken the processor away in another
EMULATED_SECONDS = 150e-6  # for ROUNDS; a real processor needs under 1e-6, an exit up to 1e-4
API_VERSION = 12

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_USER_MEMORY_REGION = 0x4020AE46
_RUN = 0xAE80
_SET_REGS = 0x4090AE82
_GET_SREGS = 0x8138AE83
_SET_SREGS = 0x4138AE84
_EXIT_HLT = 5
_PAGE = 0x1000
_SREGS_SIZE = 0x138


class KvmFinding(msgspec.Struct, frozen=True):
    """state: `works` alone means that KVM should be used. reason: one sentence for a person."""

    state: KvmState
    reason: str


def examine(device: str, arch: str) -> KvmFinding:
    """Measure the KVM device on this machine (a few milliseconds)."""
    opened = open_device(device)
    if isinstance(opened, KvmFinding):
        return opened
    try:
        version = fcntl.ioctl(opened, _GET_API_VERSION, 0)
        if version != API_VERSION:
            return KvmFinding("error", f"{device} speaks version {version} of the KVM interface.")
        if arch != "x86_64":
            os.close(fcntl.ioctl(opened, _CREATE_VM, 0))
            return KvmFinding(
                "works", f"{device} makes VMs; its speed is not measured on {arch} (unproven)."
            )
        return judge(*_measure(opened), device)
    except OSError as error:
        return KvmFinding("error", f"{device} opens, and a VM fails: {error.strerror}.")
    finally:
        os.close(opened)


def open_device(device: str) -> int | KvmFinding:
    """A descriptor of the device, or the reason why there is none (microseconds)."""
    try:
        return os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            return KvmFinding("absent", f"there is no usable {device}.")
        if error.errno in (errno.EACCES, errno.EPERM):
            return KvmFinding("denied", f"you may not open {device} ({_permissions(device)}).")
        return KvmFinding("error", f"{device} does not open: {error.strerror}.")


def _permissions(device: str) -> str:
    """Owner, group and mode: joining a group helps only where the mode lets it in."""
    try:
        status = Path(device).stat()
    except OSError as error:
        return str(error.strerror)
    return f"owner {status.st_uid}, group {status.st_gid}, mode {status.st_mode & 0o777:o}"


def judge(exit_reason: int, seconds: float, device: str) -> KvmFinding:
    """What the measured loop means. seconds: the best time for ROUNDS rounds."""
    if exit_reason != _EXIT_HLT:
        return KvmFinding(
            "error", f"a trial guest on {device} did not run (KVM exit reason {exit_reason})."
        )
    if seconds > EMULATED_SECONDS:
        return KvmFinding(
            "emulates",
            f"{device} is there and emulates instructions: {ROUNDS} rounds of a loop took "
            f"{seconds * 1e3:.1f} ms, a processor needs 0.001 ms. QEMU's TCG is faster.",
        )
    return KvmFinding(
        "works", f"{device} runs guests on the processor ({seconds * 1e6:.0f} µs per exit)."
    )


def _measure(kvm: int) -> tuple[int, float]:
    """The exit reason of the trial guest, and its best time in seconds for ROUNDS rounds."""
    vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
    try:
        with mmap.mmap(-1, _PAGE) as memory:
            _lend_memory(vm, memory)
            cpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
            try:
                with mmap.mmap(cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0)) as run:
                    return _best_run(cpu, run)
            finally:
                os.close(cpu)
    finally:
        os.close(vm)


def _lend_memory(vm: int, memory: mmap.mmap) -> None:
    """Put the loop at guest address 0: dec ecx; jnz -4; hlt (16-bit code, 32-bit counter)."""
    import ctypes

    memory[:] = b"\x66\x49\x75\xfc".ljust(_PAGE, b"\xf4")
    byte = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(byte)
    del byte  # an exported buffer would keep the mapping from being closed
    fcntl.ioctl(vm, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, _PAGE, address))


def _best_run(cpu: int, run: mmap.mmap) -> tuple[int, float]:
    sregs = bytearray(_SREGS_SIZE)
    fcntl.ioctl(cpu, _GET_SREGS, sregs)
    struct.pack_into("<Q", sregs, 0, 0)  # cs.base
    struct.pack_into("<H", sregs, 12, 0)  # cs.selector
    fcntl.ioctl(cpu, _SET_SREGS, bytes(sregs))
    best = float("inf")
    reason, _ = _run(cpu, run, 1)  # the first run pays for faulting the page in
    for _attempt in range(ATTEMPTS):
        if reason != _EXIT_HLT:
            break
        reason, seconds = _run(cpu, run, ROUNDS)
        best = min(best, seconds)
        if best <= EMULATED_SECONDS:
            break
    return reason, best


def _run(cpu: int, run: mmap.mmap, rounds: int) -> tuple[int, float]:
    registers = [0, 0, rounds, *([0] * 13), 0, 2]  # rax rbx rcx rdx ... rip, rflags
    fcntl.ioctl(cpu, _SET_REGS, struct.pack("<18Q", *registers))
    start = time.perf_counter()
    fcntl.ioctl(cpu, _RUN, 0)
    seconds = time.perf_counter() - start
    (reason,) = struct.unpack_from("<I", run, 8)  # kvm_run.exit_reason
    return int(reason), seconds
