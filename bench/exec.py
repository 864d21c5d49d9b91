"""A command in a sandbox that runs: `true`, from the SDK, through a keeper, and by `corral exec`.

    python -m bench.exec [--runs N]

Floor: fork and exec of the same `true` by a program in the same jail, measured inside the guest.
Bar: the SDK's median is at most 5 ms over that. Then sixteen commands at once, each of which writes
numbered lines: none may be lost, and each command's are in order.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from corral import AsyncSandbox
from corral.keeper.client import connect
from corral.sandbox import Execution

from .measure import arguments, median, show, workspace

SIZE = ("--cpus", "1", "--memory", "768MiB")
NAME = "bench-exec"
ALLOWANCE = 0.005  # seconds over the floor
AT_ONCE, LINES = 16, 500
FLOOR = """
import os, statistics, time
taken = []
for _ in range(%d):
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.execv("/usr/bin/true", ["true"])
    os.waitpid(pid, 0)
    taken.append(time.perf_counter() - began)
print(statistics.median(taken))
"""
COUNT = "import sys\nfor n in range(%d): print(sys.argv[1], n)"


class Executor(Protocol):
    """A sandbox of this process, or one that is kept."""

    async def exec(self, argv: list[str]) -> Execution:
        """Start a command."""


async def output(box: Executor, *argv: str) -> bytes:
    """A command's output, to its end."""
    execution = await box.exec(list(argv))
    await execution.stdin.end()
    data = b""
    while piece := await execution.stdout.read():
        data += piece
    assert await execution.wait() == 0
    return data


async def medians(runs: int, once: Callable[[], Awaitable[object]]) -> float:
    """The median of so many times, after one that warms up."""
    await once()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        await once()
        taken.append(time.perf_counter() - began)
    return median(taken)


async def sixteen(box: Executor) -> float:
    """Seconds for all of them; ends the program when one line is not where it belongs."""
    began = time.perf_counter()
    script = COUNT % LINES
    outputs = await asyncio.gather(
        *(output(box, "python3", "-c", script, str(each)) for each in range(AT_ONCE))
    )
    took = time.perf_counter() - began
    for each, data in enumerate(outputs):
        if data.decode() != "".join(f"{each} {line}\n" for line in range(LINES)):
            sys.exit(f"command {each}: its output is not what it wrote")
    return took


async def through_sdk(folder: Path, runs: int) -> tuple[float, float]:
    """Medians of the floor, and of the SDK."""
    async with AsyncSandbox(workspace=folder, cpus=1, memory="768MiB") as box:
        floor = float((await box.exec(["python3", "-c", FLOOR % runs])).stdout)

        async def once() -> None:
            assert (await box.exec(["/usr/bin/true"])).status == 0

        return floor, await medians(runs, once)


async def through_keeper(runs: int) -> tuple[float, float]:
    """The median over a connection that stays, and the seconds of sixteen at once."""
    async with connect(NAME) as kept:
        return (
            await medians(runs, lambda: output(kept, "/usr/bin/true")),
            await sixteen(kept),
        )


def corral(*words: str, cwd: Path | None = None) -> None:
    """One command line."""
    argv = [sys.executable, "-m", "corral", *words]
    subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


async def by_command_line() -> None:
    """`corral exec`, to its end."""
    await asyncio.to_thread(corral, "exec", NAME, "--", "/usr/bin/true")


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "", runs=50)
    with workspace() as folder:
        floor, sdk = asyncio.run(through_sdk(folder, options.runs))
        corral("up", NAME, "-d", *SIZE, cwd=folder)
        try:
            kept, at_once = asyncio.run(through_keeper(options.runs))
            line = asyncio.run(medians(max(5, options.runs // 5), by_command_line))
        finally:
            corral("rm", "-f", NAME)

    def shown(seconds: float) -> str:
        return f"{1000 * seconds:.1f} ms = {seconds / floor:.1f} x floor"

    met = "met" if sdk <= floor + ALLOWANCE else "MISSED"
    rows = [
        ("floor: fork and exec in the guest", f"{1000 * floor:.1f} ms"),
        ("SDK", shown(sdk)),
        ("through a keeper", shown(kept)),
        ("corral exec", shown(line)),
        (f"{AT_ONCE} at once through a keeper", f"{at_once:.2f} s; all lines there, in order"),
        ("bar: SDK at most 5 ms over the floor", f"{1000 * (sdk - floor):.1f} ms: {met}"),
    ]
    show(f"exec of true, medians of {options.runs}", rows, as_json=options.json)


if __name__ == "__main__":
    main()
