"""Several agents in one machine: what each costs, and what they cost one another.

    python -m bench.agents [--runs N] [--agents N]

Measured in the same run: the first commands of a fresh machine with one agent and with many; a new
agent in a machine that runs, beside bubblewrap alone in the same guest (bar: 1.5 times that, and
10 ms times the slowness of the emulation); memory of the host for each further agent; many at work
at once beside the sum of their work alone. What a review costs: `python -m bench.review`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.herds import herd_on
from tests.support.sandboxes import guest_root, python, run, succeeded

from corral.events import AgentBecame, Event, Report, silent
from corral.sandbox import Sandbox
from corral.sandbox.agents import State

from .measure import arguments, median, show

RATIO, EXTRA = 1.5, 0.010  # of an agent's start to bubblewrap's; seconds at a processor's own speed
FIRST_RATIO = 3.0  # of the first commands of twelve to that of one
CPUS = 2
SIZE: dict[str, object] = {"machine.cpus": CPUS, "machine.memory": "2GiB"}
LOOP = "import time\nt = time.perf_counter()\nfor n in range({count}): n * n % 7\n"
LOOP += "print(time.perf_counter() - t)"
WORK, FACTOR = LOOP.format(count=400_000), LOOP.format(count=1_000_000)
BARE = """
import os, time
argv = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc",
        "--unshare-uts", "--unshare-cgroup", "--as-pid-1", "--die-with-parent", "--proc", "/proc",
        "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/toolbox/usr", "/usr",
        "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--", "/usr/bin/true"]
for _ in range(7):
    began = time.perf_counter()
    pid = os.posix_spawn("/usr/bin/bwrap", argv, {})
    _, status = os.waitpid(pid, 0)
    print(time.perf_counter() - began if status == 0 else "failed")
"""


@asynccontextmanager
async def herd(count: int, report: Report = silent) -> AsyncIterator[tuple[Sandbox, float]]:
    """A running herd; with it, when it was asked for."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as folder:
        project = Path(folder) / "project"
        project.mkdir()
        (project / "file").write_text("content\n")
        began = time.perf_counter()
        state = Path(folder) / "state"
        async with herd_on(project, state, count, SIZE, report=report) as sandbox:
            yield sandbox, began


async def timed(work: Awaitable[object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def first(count: int) -> tuple[float, int]:
    """Seconds until every agent of a new machine has done something; bytes that it takes then."""
    async with herd(count) as (sandbox, began):
        await asyncio.gather(*(run(sandbox, "true", agent=n + 1) for n in range(count)))
        seconds = time.perf_counter() - began
        return seconds, (await sandbox.usage()).memory


async def bare(sandbox: Sandbox) -> float:
    """Seconds of bubblewrap alone in the guest, the first one left out."""
    lines = succeeded(await guest_root(sandbox, BARE)).split()
    return median([float(line) for line in lines[1:]])


async def started(sandbox: Sandbox, dead: asyncio.Event, number: int) -> float:
    """Seconds from asking for an agent's jail until it takes commands. dead: set when one is."""
    agents = sandbox._agents
    dead.clear()
    await sandbox.kill(number)
    await asyncio.wait_for(dead.wait(), 60)
    return await timed(agents._make(agents._lives[number]))


async def together(sandbox: Sandbox, count: int) -> tuple[float, float]:
    """Seconds: the sum of what each needs for its work alone, and of all at once."""
    alone = [await timed(python(sandbox, WORK, agent=n + 1)) for n in range(count)]
    at_once = await timed(
        asyncio.gather(*(python(sandbox, WORK, agent=n + 1) for n in range(count)))
    )
    return sum(alone), at_once


def slowness(inside: Sequence[float]) -> float:
    """How many times slower a processor of the guest is than one of the host's."""
    argv = [sys.executable, "-I", "-c", FACTOR]
    outside = [float(subprocess.run(argv, check=True, capture_output=True).stdout) for _ in inside]
    return max(1.0, median(inside) / median(outside))


async def measured(runs: int, many: int) -> tuple[list[tuple[str, str]], bool]:
    """The table's rows, and whether all bars hold."""
    ones, alls = [], []
    for _ in range(runs):
        ones.append(await first(1))
        alls.append(await first(many))
    one, all_ = median([seconds for seconds, _ in ones]), median([seconds for seconds, _ in alls])
    further = (median([m for _, m in alls]) - median([m for _, m in ones])) / (many - 1)
    dead = asyncio.Event()

    def report(event: Event) -> None:
        if isinstance(event, AgentBecame) and event.state == State.DEAD:
            dead.set()

    async with herd(many, report) as (sandbox, _began):
        loops = [float(succeeded(await python(sandbox, FACTOR))) for _ in range(3)]
        factor = slowness(loops)
        floor = await bare(sandbox)
        start = median([await started(sandbox, dead, 2) for _ in range(max(3, runs))])
        total, at_once = await together(sandbox, many)
    most = RATIO * floor + EXTRA * factor
    cpus = min(os.cpu_count() or 1, CPUS)
    rows = [
        ("first command, 1 agent", f"{one:.2f} s"),
        (f"first commands, {many} agents", f"{all_:.2f} s ({all_ / one:.1f} times)"),
        ("a guest's processor", f"{factor:.1f} times slower than the host's"),
        ("bubblewrap in the guest", f"{floor * 1000:.0f} ms"),
        ("a new agent's jail", f"{start * 1000:.0f} ms (at most {most * 1000:.0f} ms)"),
        ("memory of a further agent", f"{further / (1 << 20):.1f} MiB"),
        (f"work of {many}, one by one", f"{total:.2f} s"),
        ("the same at once", f"{at_once:.2f} s ({total / at_once:.2f} times as fast, {cpus} CPUs)"),
    ]
    return rows, start <= most and all_ <= FIRST_RATIO * one


def main() -> None:
    """Measure and print."""
    options = arguments(
        "What several agents in one machine cost.",
        runs=3,
        further={"--agents": {"type": int, "default": 12, "help": "how many (default 12)"}},
    )
    rows, good = asyncio.run(measured(options.runs, options.agents))
    show("Several agents in one machine", rows, as_json=options.json)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
