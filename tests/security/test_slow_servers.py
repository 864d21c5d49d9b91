"""Two agents in one machine, the file server of the first of which answers nothing for a while.

An agent can bring that about: the server does one thing at a time, and to copy gigabytes from file
to file is one thing. Here it is stopped, which is the same for longer and costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from corral.sandbox import Sandbox
from tests.support import leftovers
from tests.support.herds import herd_on
from tests.support.sandboxes import run, shell, succeeded

SLOW = 10.0  # seconds for a command of who is not concerned, emulated; alone it takes some 0.2
BUSY, OTHER = 1, 2


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    base = tmp_path_factory.mktemp("servers")
    (base / "project").mkdir()
    wanted = {"herd.restart": "on-failure"}
    async with herd_on(base / "project", base / "state", 2, wanted) as running:
        for agent in (BUSY, OTHER):
            succeeded(await run(running, "true", agent=agent))
        yield running


WORKSPACE = "/export/workspace"  # as a server sees it


def server(sandbox: Sandbox, agent: int) -> list[psutil.Process]:
    """The processes that serve an agent's files: their sources are pinned in the agents' order."""
    found: dict[str, list[psutil.Process]] = {}
    for process in leftovers.family():
        with contextlib.suppress(psutil.Error):  # gone a moment ago
            words = process.cmdline()
            children = process.children(recursive=True)
            if WORKSPACE in words and children:
                found.setdefault(words[words.index(WORKSPACE) - 1], children)
    assert len(found) == len(sandbox.plan.agents)
    return found[sorted(found)[agent - 1]]


@contextlib.contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


async def served(sandbox: Sandbox, times: int = 3) -> None:
    """Another agent's commands, their output and their end are as ever."""
    for _ in range(times):
        began = time.monotonic()
        assert succeeded(await shell(sandbox, "echo fine", agent=OTHER, timeout=60)) == "fine\n"
        assert time.monotonic() - began < SLOW


async def test_who_waits_for_its_file_server_waits_alone(sandbox: Sandbox) -> None:
    with stopped(server(sandbox, BUSY)):
        begun = asyncio.create_task(shell(sandbox, "cat f; echo late", agent=BUSY, timeout=100))
        await served(sandbox)
        synced = asyncio.create_task(sandbox.sync())
        await served(sandbox)
        assert not begun.done()
    assert succeeded(await begun) == "late\n"
    await synced


async def test_what_ends_with_its_file_server_out_of_reach_holds_nobody_up(
    sandbox: Sandbox,
) -> None:
    """The jail is lost meanwhile, and made again once nothing of it is left: what waits for its
    file server cannot be killed before that has answered.
    """
    ends = "(sleep 2; ls /workspace/missing) & sleep 4; kill -9 $(pgrep -x corral)"
    last = await sandbox.exec(["sh", "-c", ends], agent=BUSY, workdir="/")
    with stopped(server(sandbox, BUSY)):
        while (await sandbox.agents())[BUSY - 1].state != "dead":
            await served(sandbox, 1)
        await served(sandbox)
    assert await last.wait() == 137
    async with asyncio.timeout(60):
        while (await sandbox.agents())[BUSY - 1].state != "idle":
            await served(sandbox, 1)
    assert succeeded(await shell(sandbox, "echo back", agent=BUSY)) == "back\n"
