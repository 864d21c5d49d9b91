"""Two agents in one machine: whatever the second uses up, breaks or floods is its own.

After each attack the first agent still has its process and is served, and not slowly; the second
is seen in its state, and gets a new jail where it has lost its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest

from corral.errors import CorralError
from corral.events import AgentBecame, Event
from corral.sandbox import AgentStatus, Execution, Sandbox, start
from corral.sandbox import agents as agents_of
from tests.support.sandboxes import Result, plan_for, python, run, shell, succeeded

MIB = 1 << 20
MEMORY, PIDS, HOME, TMP = 160 * MIB, 100, 24 * MIB, 16 * MIB
OVERRIDES: dict[str, object] = {
    "herd.agents": 2,
    "herd.workspace": "together",
    "herd.memory": f"{MEMORY}B",
    "herd.pids": PIDS,
    "herd.home": f"{HOME}B",
    "herd.tmp": f"{TMP}B",
    "herd.restart": "on-failure",
    "run.user": "root",  # who may write to the system tree
}
VICTIM, ATTACKER = 1, 2
SLOW = 20.0  # seconds for a command of the victim's, emulated, on a busy host; alone some 0.1
EVENTS: list[Event] = []


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    plan, parts = plan_for(tmp_path_factory.mktemp("limits"), OVERRIDES)
    async with start(plan, parts, EVENTS.append) as running:
        yield running


@pytest.fixture(autouse=True)
async def victim(sandbox: Sandbox) -> AsyncIterator[None]:
    """The first agent, which works all the while and is none the worse for it."""
    began = await sandbox.exec(["cat"], agent=VICTIM)
    await served(sandbox)
    yield
    await served(sandbox)
    await began.stdin.write(b"still here")
    await began.stdin.end()
    assert await began.stdout.read() == b"still here"
    assert await began.wait() == 0
    assert (await status(sandbox, VICTIM)).oom_kills == 0


async def served(sandbox: Sandbox) -> float:
    """Seconds that a command of the victim's takes."""
    script = "echo x > ~/file && echo x > /tmp/file && echo x > /opt/file && (true) && echo fine"
    began = time.monotonic()
    assert succeeded(await shell(sandbox, script, agent=VICTIM, timeout=SLOW)) == "fine\n"
    return time.monotonic() - began


async def status(sandbox: Sandbox, number: int) -> AgentStatus:
    return (await sandbox.agents())[number - 1]


async def attack(sandbox: Sandbox, code: str, **options: object) -> Result:
    return await python(sandbox, code, agent=ATTACKER, **options)


async def comes_back(sandbox: Sandbox, restarts: int) -> AgentStatus:
    """The attacker, once its jail has been made again."""
    async with asyncio.timeout(60):
        while (now := await status(sandbox, ATTACKER)).restarts == restarts or now.state != "idle":
            await served(sandbox)
    assert (await run(sandbox, "true", agent=ATTACKER)).status == 0
    return now


def became(state: str) -> list[str]:
    """The reasons for which the attacker came into a state."""
    return [
        each.reason
        for each in EVENTS
        if isinstance(each, AgentBecame) and (each.agent, each.state) == (ATTACKER, state)
    ]


FILL = """
import os, sys
path, piece, written = sys.argv[1], bytes(1 << 20), 0
with open(path + "/big", "wb", buffering=0) as file:
    try:
        while True:
            written += file.write(piece)
    except OSError as error:
        print(written, error.errno, flush=True)
os.unlink(path + "/big") if len(sys.argv) < 3 else None
"""
ENOSPC = 28


async def fill(sandbox: Sandbox, path: str, *, keep: bool = False) -> tuple[int, int]:
    argv = ["python3", "-c", FILL, path, *(["keep"] if keep else [])]
    written, number = succeeded(await run(sandbox, *argv, agent=ATTACKER)).split()
    return int(written), int(number)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/root", HOME),
        ("/tmp", TMP),
        ("/var/tmp", TMP),
        ("/dev/shm", TMP),
        ("/run", TMP),
        ("/opt", MEMORY // 2),
    ],
)
async def test_what_an_agent_fills_is_its_own(sandbox: Sandbox, path: str, most: int) -> None:
    if path == "/root" and os.getuid() == 0:
        path = succeeded(await shell(sandbox, "echo ~", agent=ATTACKER)).strip()
    written, number = await fill(sandbox, path)
    assert number == ENOSPC
    assert most - 2 * MIB <= written <= most


async def test_what_an_agent_keeps_in_memory_counts_for_it(sandbox: Sandbox) -> None:
    before = [each.memory or 0 for each in await sandbox.agents()]
    await fill(sandbox, "/opt", keep=True)
    await fill(sandbox, "/dev/shm", keep=True)
    after = [each.memory or 0 for each in await sandbox.agents()]
    kept = MEMORY // 2 + TMP
    assert after[1] - before[1] > kept * 0.9
    assert after[0] - before[0] < 8 * MIB
    await shell(sandbox, "rm /opt/big /dev/shm/big", agent=ATTACKER)


FILES = """
import os, sys
folder, count = sys.argv[1] + "/many", 0
os.mkdir(folder)
try:
    while True:
        os.symlink("x", f"{folder}/{count}")
        count += 1
except OSError as error:
    print(count, error.errno)
for number in range(count):
    os.unlink(f"{folder}/{number}")
os.rmdir(folder)
"""


@pytest.mark.parametrize(("path", "size"), [("/tmp", TMP), ("/opt", MEMORY // 2)])
async def test_names_that_an_agent_uses_up_are_its_own(
    sandbox: Sandbox, path: str, size: int
) -> None:
    argv = ("python3", "-c", FILES, path)
    count, number = map(
        int, succeeded(await run(sandbox, *argv, agent=ATTACKER, timeout=120)).split()
    )
    assert number == ENOSPC
    assert 100 < count <= size // 4096


FORKS = """
import os, time
count = 0
try:
    while True:
        if not os.fork():
            while count < 4:
                pass
            time.sleep(600)
        count += 1
except OSError as error:
    print(count, error.errno, flush=True)
time.sleep(600)
"""
EAGAIN = 11


async def test_an_agent_that_forks_without_end_takes_its_own_share(sandbox: Sandbox) -> None:
    """Of processes, and of the processor, which all of them want."""
    bomb = await sandbox.exec(["python3", "-c", FORKS], agent=ATTACKER)
    count, number = map(int, (await bomb.stdout.read()).split())
    assert number == EAGAIN
    assert PIDS // 2 < count < PIDS
    assert (await status(sandbox, ATTACKER)).pids == PIDS
    await served(sandbox)
    assert (await status(sandbox, VICTIM)).state == "working"
    await bomb.end()
    assert (await bomb.wait()) == 137
    async with asyncio.timeout(30):  # what is killed counts until the jail has heard of it
        while ((await status(sandbox, ATTACKER)).pids or 0) > 10:
            await served(sandbox)


ALL_MEMORY = "held = []\nwhile True:\n    held.append(bytearray(b'x' * (1 << 20)))"


async def test_an_agent_that_takes_all_memory_ends_alone_and_comes_back(sandbox: Sandbox) -> None:
    before = await status(sandbox, ATTACKER)
    assert (await attack(sandbox, ALL_MEMORY)).status == 137
    await served(sandbox)
    after = await comes_back(sandbox, before.restarts)
    assert after.oom_kills > before.oom_kills
    assert "it had no memory left" in became("dead")


async def test_an_agent_that_kills_its_jail_ends_alone_and_comes_back(sandbox: Sandbox) -> None:
    before = await status(sandbox, ATTACKER)
    await shell(sandbox, "echo x > /opt/mine; kill -9 $(pgrep -x corral)", agent=ATTACKER)
    await comes_back(sandbox, before.restarts)
    assert (await shell(sandbox, "test -e /opt/mine", agent=ATTACKER)).status == 1, "all of it anew"


async def drained(execution: Execution) -> int:
    """Read what a command writes as fast as that comes."""
    size = 0
    try:
        while data := await execution.stdout.read(1 << 18):
            size += len(data)
    except CorralError:
        pass
    return size


async def test_an_agent_that_floods_its_output_does_not_hold_others_up(sandbox: Sandbox) -> None:
    floods = [
        await sandbox.exec(["cat", "/dev/zero"], agent=ATTACKER) for _ in range(12)
    ]  # on more streams than the carrier has room for
    readers = [asyncio.create_task(drained(each)) for each in floods]
    slowest = 0.0
    for _ in range(5):
        slowest = max(slowest, await served(sandbox))
    assert slowest < SLOW
    numbers = await sandbox.agents()
    assert [each.state for each in numbers] == ["working", "working"]
    assert all((each.heard or 0) < 15 for each in numbers)
    for each in floods:
        await each.end()
    sizes = await asyncio.gather(*readers)
    assert all(size > 65536 for size in sizes), "each of its own streams has its turn"
    assert sum(sizes) > 4 * MIB


async def test_an_agent_that_stops_its_jail_is_seen_ended_and_comes_back(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_of, "STUCK_LIMIT", 0.1)
    before = await status(sandbox, ATTACKER)
    stopped = await sandbox.exec(
        ["sh", "-c", "sleep 1; kill -STOP $(pgrep -x corral); sleep 600"], agent=ATTACKER
    )
    reasons = len(became("stuck"))
    async with asyncio.timeout(90):
        while len(became("stuck")) == reasons:
            await served(sandbox)
    assert became("stuck")[-1] == "it gives no sign of life"
    await comes_back(sandbox, before.restarts)
    assert await stopped.wait() == 137
