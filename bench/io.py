"""Bytes in and out of a sandbox, against the host's own; the workspace in every cache mode.

    python -m bench.io [--runs N] [--rust] [--modes auto,none,...] [--files N]

Each job is the same program (Python, git) on the same folder, once in the sandbox and once on the
host, which is the floor. Modes are virtiofsd's for the workspace; see
docs/filesystem-performance.md. stdout: through the channel to a pipe here, against a pipe alone.
Under TCG most of the difference is emulation, not the file system: `cpu` shows how much slower
plain computing is. --rust: Debian's Rust virtiofsd in place of the host's.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from corral.events import silent
from corral.host import Virtiofsd
from corral.images.fetch import fetch_tool
from corral.plan import Plan
from corral.sandbox import Parts, Sandbox, start

from .measure import arguments, median, show, workspace
from .start import make_plan

MIB = 1 << 20
BIG, OUTPUT = 64, 64  # MiB
SMALL_FILES = 10_000
REPOSITORY = (100, 50)  # folders, files in each
MODES: dict[str, dict[str, object]] = {
    "auto": {"cache": "auto"},
    "none": {"cache": "none"},
    "always": {"cache": "always"},
    "auto+writeback": {"cache": "auto", "writeback": True},
    "always+writeback": {"cache": "always", "writeback": True},
}

PYTHON = (
    "import os, subprocess, time\nt = time.perf_counter()\n{job}\nprint(time.perf_counter() - t)"
)
CHATTER = f"import os\nb = bytes({MIB})\nfor _ in range({OUTPUT}): os.write(1, b)"


@dataclasses.dataclass(frozen=True)
class Job:
    """What is timed. amount: of units in one run."""

    unit: str
    amount: int
    code: str


def jobs(files: int) -> dict[str, Job]:
    """In the order in which they are run: later ones use what earlier ones made."""
    inside = f"""
os.makedirs("small", exist_ok=True)
os.chdir("small")
for n in range({files}):
    """
    status = """
e = {"PATH": os.environ["PATH"], "GIT_OPTIONAL_LOCKS": "0", "HOME": "/nonexistent"}
g = ["git", "-c", "safe.directory=*", "-C", "repository", "status", "--porcelain"]
assert subprocess.run(g, env=e, check=True, capture_output=True).stdout == b""
"""
    count = REPOSITORY[0] * REPOSITORY[1]
    return {
        "write": Job("MiB/s", BIG, f"""
with open("big", "wb", buffering=0) as f:
    for _ in range({BIG}): f.write(bytes({MIB}))
    os.fsync(f.fileno())"""),
        "read": Job("MiB/s", BIG, f"""
with open("big", "rb", buffering=0) as f:
    while f.read({MIB}): pass"""),
        "create small files": Job("files/s", files, inside + 'open(str(n), "w").write("x")'),
        "read small files": Job("files/s", files, inside + "open(str(n)).read()"),
        "remove small files": Job("files/s", files, inside + "os.unlink(str(n))"),
        "git status": Job("files/s", count, status),
        "git status again": Job("files/s", count, status),
    }  # fmt: skip


def make_repository(folder: Path) -> None:
    """A repository with many files, all committed."""
    folders, each = REPOSITORY
    for number in range(folders):
        place = folder / f"folder-{number}"
        place.mkdir(parents=True)
        for file in range(each):
            (place / f"file-{file}").write_text(f"{number} {file}\n" * 20)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


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


def with_mode(plan: Plan, mode: str) -> Plan:
    """The plan with another cache mode for its workspace."""
    agents = tuple(
        msgspec.structs.replace(agent, export=msgspec.structs.replace(agent.export, **MODES[mode]))
        for agent in plan.agents
    )
    return msgspec.structs.replace(plan, agents=agents)


@contextmanager
def prepared() -> Iterator[Path]:
    """A workspace with a repository in it."""
    with workspace() as folder:
        make_repository(folder / "repository")
        yield folder


async def measure(plan: Plan, parts: Parts, runs: int, files: int) -> dict[str, float]:
    """Seconds of each job in a sandbox."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs(files)}
    for _ in range(runs):
        async with start(plan, parts, silent) as sandbox:  # each run with caches that are empty
            for name, job in jobs(files).items():
                output = await in_sandbox(sandbox, PYTHON.format(job=job.code))
                seconds[name].append(float(output))
    return {name: median(values) for name, values in seconds.items()}


def measure_host(folder: Path, files: int) -> dict[str, float]:
    """Seconds of each job on the host, medians of three."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs(files)}
    for _ in range(3):
        for name, job in jobs(files).items():
            seconds[name].append(float(on_host(folder, PYTHON.format(job=job.code))))
    return {name: median(values) for name, values in seconds.items()}


async def channel(plan: Plan, parts: Parts, folder: Path, runs: int) -> Iterator[tuple[str, str]]:
    """Plain computing, and what the channel carries."""
    loop = "x = 0\nfor i in range(2_000_000): x += i"
    code = PYTHON.format(job=loop)
    rows = []
    async with start(plan, parts, silent) as sandbox:
        ours = [float(await in_sandbox(sandbox, code)) for _ in range(runs)]
        theirs = [float(on_host(folder, code)) for _ in range(runs)]
        rows.append(("cpu", f"{median(theirs) / median(ours):.3f} of the host's"))
        ours, theirs = [], []
        for _ in range(runs):
            theirs.append(timed(lambda: on_host(folder, CHATTER)))
            began = time.perf_counter()
            await in_sandbox(sandbox, CHATTER)
            ours.append(time.perf_counter() - began)
        inside, outside = OUTPUT / median(ours), OUTPUT / median(theirs)
        rows.append(("stdout", f"{inside:,.0f} MiB/s; host {outside:,.0f}: {inside / outside:.3f}"))
    return iter(rows)


async def table(options: argparse.Namespace) -> list[tuple[str, str]]:
    """All modes on all jobs."""
    runs, files = options.runs, options.files
    modes = options.modes.split(",")
    with prepared() as folder:
        plan, parts = make_plan(folder)
        if options.rust:
            server = Virtiofsd(program=fetch_tool("virtiofsd", silent), dialect="rust")
            parts = dataclasses.replace(parts, file_server=server)
        rows: list[tuple[str, str]] = [("accelerator", plan.machine.accel)]
        rows += list(await channel(plan, parts, folder, max(runs, 2)))
        every = jobs(files)
        host = measure_host(folder, files)
        for name, job in every.items():
            rows.append((f"host: {name}", f"{job.amount / host[name]:,.0f} {job.unit}"))
        for mode in modes:
            taken = await measure(with_mode(plan, mode), parts, runs, files)
            for name, job in every.items():
                rate, ratio = job.amount / taken[name], host[name] / taken[name]
                rows.append((f"{mode}: {name}", f"{rate:,.0f} {job.unit} = {ratio:.4f} of host"))
    return rows


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    further: dict[str, dict[str, Any]] = {
        "--rust": {"action": "store_true", "help": "Debian's Rust virtiofsd"},
        "--modes": {"default": ",".join(MODES), "help": f"of {', '.join(MODES)}"},
        "--files": {"type": int, "default": SMALL_FILES, "help": "small files"},
    }
    options = arguments(__doc__ or "", runs=1, further=further)
    rows = asyncio.run(table(options))
    show(f"input and output, medians of {options.runs}", rows, as_json=options.json)


if __name__ == "__main__":
    main()
