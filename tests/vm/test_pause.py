"""Standing still: a machine is halted when nothing is on its way to its file servers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.support.sandboxes import guest_root, lines, python, sandbox_on, succeeded

ROUNDS = 30
PATIENCE = 30.0
# Waits for the file server all the time.
BUSY = """
import itertools
for number in itertools.count():
    with open("tick", "w") as file:
        file.write(str(number))
"""
# What process 1 does, many times; says how often a group of the agent's was not frozen then.
FREEZE = """
import os, time
from corral_guest import freezer
agent = "/sys/fs/cgroup/agent-1"
moving = 0
for _ in range(100):
    freezer.freeze([agent])
    for group, _, _ in os.walk(agent):
        with open(group + "/cgroup.events") as file:
            moving += "frozen 1" not in file.read()
    freezer.thaw([agent])
    time.sleep(0.02)
print(moving)
"""


async def test_frozen_every_process_of_every_command_stands_still(tmp_path: Path) -> None:
    """The kernel says it of the agent's own group when only its jail's processes do."""
    async with sandbox_on(tmp_path) as sandbox:
        busy = await sandbox.exec(["python3", "-c", BUSY])
        await asyncio.to_thread(changed, tmp_path / "tick", "")
        assert lines(await guest_root(sandbox, FREEZE)) == ["0"]
        await busy.end()


async def test_a_command_goes_on_with_its_files_however_often_it_was_halted(
    tmp_path: Path,
) -> None:
    tick = tmp_path / "tick"
    async with sandbox_on(tmp_path) as sandbox:
        busy = await sandbox.exec(["python3", "-c", BUSY])
        await asyncio.to_thread(changed, tick, "")
        for _ in range(ROUNDS):
            await sandbox.pause()
            before = tick.read_text()
            await asyncio.sleep(0.05)
            assert tick.read_text() == before
            await sandbox.resume()
            await asyncio.to_thread(changed, tick, before)
        await busy.end()
        said = succeeded(await python(sandbox, "print(open('tick').read())")).strip()
        assert said == tick.read_text()


def changed(file: Path, before: str) -> None:
    """Wait until a number is in the file, and another one than before."""
    limit = time.monotonic() + PATIENCE
    while not file.exists() or file.read_text() in ("", before):
        assert time.monotonic() < limit, f"it stays {before!r}"
        time.sleep(0.02)
