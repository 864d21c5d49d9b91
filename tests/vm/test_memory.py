"""Memory that a guest frees goes back to the host."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from corral.backends.qemu.render import RAM_FD
from tests.support import leftovers
from tests.support.sandboxes import python, sandbox_on, succeeded

MIB = 1 << 20
PATIENCE = 40.0  # seconds; the guest looks for free pages every two, if it gets to it
HOLD = """
import sys
held = bytearray(b"x") * (300 << 20)
print("held", flush=True)
sys.stdin.read()
"""


def allocated() -> int:
    """Bytes that the guest's memory takes on the host."""
    (qemu,) = leftovers.running("qemu-system")
    return os.stat(f"/proc/{qemu.pid}/fd/{RAM_FD}").st_blocks * 512


async def test_what_a_guest_frees_goes_back_to_the_host(project: Path) -> None:
    async with sandbox_on(project) as sandbox:
        succeeded(await python(sandbox, "pass"))
        execution = await sandbox.exec(("python3", "-c", HOLD))
        assert await execution.stdout.read() == b"held\n"
        full = allocated()
        assert full > 300 * MIB
        await execution.stdin.end()
        assert await execution.wait() == 0
        limit = time.monotonic() + PATIENCE
        while (left := allocated()) > full - 250 * MIB and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # nothing tells of a hole in a file
        assert left <= full - 250 * MIB, f"{full // MIB} MiB, then still {left // MIB} MiB"
        succeeded(await python(sandbox, "assert len(bytes(64 << 20)) == 64 << 20"))


async def test_usage_tells_what_the_host_has_given(project: Path) -> None:
    async with sandbox_on(project) as sandbox:
        succeeded(await python(sandbox, "pass"))
        before = await sandbox.usage()
        execution = await sandbox.exec(("python3", "-c", HOLD))
        assert await execution.stdout.read() == b"held\n"
        full = await sandbox.usage()
        assert full.ram == allocated() and full.ram - before.ram > 250 * MIB
        assert full.memory - full.ram == pytest.approx(before.memory - before.ram, abs=50 * MIB)
        assert full.cpu > before.cpu and full.processes == before.processes >= 7
        assert (full.disk, full.received, full.sent) == (0, 0, 0)
        await execution.stdin.end()
        await execution.wait()
