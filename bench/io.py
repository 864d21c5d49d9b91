"""Bytes in and out of a sandbox, against the host's own.

    python -m bench.io [--runs N]

Each job is the same program (Python) on the same folder, once in the sandbox and once on the host,
which is the floor. stdout: through the channel to a pipe here, against a pipe alone. Under TCG most
of the difference is emulation, not the channel: `cpu` shows how much slower plain computing is.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from corral.events import silent
from corral.sandbox import Sandbox, start

from .measure import arguments, median, show, workspace
from .start import make_plan

MIB = 1 << 20
BIG, SMALL_FILES, OUTPUT = 64, 300, 64  # MiB, files, MiB

JOBS = {
    "cpu": ("loops/s", 2_000_000, """
x = 0
for i in range(2_000_000): x += i"""),
    "write": ("MiB/s", BIG, f"""
import os
with open("big", "wb", buffering=0) as f:
    for _ in range({BIG}): f.write(bytes({MIB}))
    os.fsync(f.fileno())"""),
    "read": ("MiB/s", BIG, f"""
with open("big", "rb", buffering=0) as f:
    while f.read({MIB}): pass"""),
    "small files": ("files/s", SMALL_FILES, f"""
import os
os.mkdir("small")
for n in range({SMALL_FILES}):
    with open(f"small/{{n}}", "w") as f: f.write("x")
for n in range({SMALL_FILES}): os.stat(f"small/{{n}}")
for n in range({SMALL_FILES}): os.unlink(f"small/{{n}}")
os.rmdir("small")"""),
}  # fmt: skip
TIMED = "import time\nt = time.perf_counter()\n{job}\nprint(time.perf_counter() - t)"
CHATTER = f"import os\nb = bytes({MIB})\nfor _ in range({OUTPUT}): os.write(1, b)"


async def in_sandbox(sandbox: Sandbox, code: str) -> bytes:
    """The output of a program in the sandbox."""
    execution = await sandbox.exec(("python3", "-c", code))
    await execution.stdin.end()
    output = bytearray()
    while data := await execution.stdout.read():
        output += data
    if await execution.wait() != 0:
        assert execution.stderr is not None
        sys.exit((await execution.stderr.read()).decode())
    return bytes(output)


def on_host(folder: Path, code: str) -> bytes:
    """The same on the host."""
    argv = ["/usr/bin/python3", "-c", code]
    return subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.PIPE).stdout


async def rates(options_runs: int) -> list[tuple[str, str]]:
    """All jobs, in turn."""
    with workspace() as folder:
        plan, parts = make_plan(folder)
        async with start(plan, parts, silent) as sandbox:
            rows: list[tuple[str, str]] = [("accelerator", plan.machine.accel)]
            for name, (unit, amount, job) in JOBS.items():
                code = TIMED.format(job=job)
                ours, theirs = list[float](), list[float]()
                for _ in range(options_runs):
                    theirs.append(amount / float(on_host(folder, code)))
                    ours.append(amount / float(await in_sandbox(sandbox, code)))
                rows.append(row(name, ours, theirs, unit))
            ours, theirs = list[float](), list[float]()
            for _ in range(options_runs):
                theirs.append(OUTPUT / timed(lambda: on_host(folder, CHATTER)))
                began = time.perf_counter()
                await in_sandbox(sandbox, CHATTER)
                ours.append(OUTPUT / (time.perf_counter() - began))
            rows.append(row("stdout", ours, theirs, "MiB/s"))
    return rows


def row(name: str, ours: list[float], theirs: list[float], unit: str) -> tuple[str, str]:
    """One line: the sandbox's rate, the host's, the ratio."""
    inside, outside = median(ours), median(theirs)
    return name, f"{inside:,.0f} {unit}; host {outside:,.0f}; ratio {inside / outside:.3f}"


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "", runs=3)
    rows = asyncio.run(rates(options.runs))
    show(f"input and output, medians of {options.runs}", rows, as_json=options.json)


if __name__ == "__main__":
    main()
