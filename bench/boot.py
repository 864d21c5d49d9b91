"""The phases of a cold `corral run -- true`, against the same machine booting a trivial init.

    python -m bench.boot [--runs N]

Floor: the same QEMU command line, kernel and base image, in the same confinement, with a C program
as init that prints a line (bubblewrap's version) in place of corral's supervisor. Both are run in
turn, and medians compared. Bar: the command is done within 1.5 times the floor plus 1.0 s.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from corral.backends.qemu import render
from corral.events import silent
from corral.host import layout, measure
from corral.plan import Plan, build
from corral.sandbox import Parts, prepare
from corral.sandbox.planning import jail_filters
from corral.spec import PROTECTED, load_spec

from .measure import arguments, median, show, workspace

SIZE = {"machine.cpus": 1, "machine.memory": "1GiB", "machine.cold": True}
OPTIONS = ("--cpus", "1", "--memory", "1GiB")
TRIVIAL_INIT, ITS_WORDS = "rdinit=/usr/bin/bwrap -- --version", b"bubblewrap"
FACTOR, ALLOWANCE = 1.5, 1.0


def cold_run(folder: Path) -> dict[str, float]:
    """Seconds from the start of the process to each event of `corral run --json -- true`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "corral", "run", "--cold", "--json", *OPTIONS, "--", "true"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    seen: dict[str, float] = {}
    for line in process.stdout:
        event = json.loads(line)
        seen[event.get("name", event["event"])] = time.perf_counter() - began
    if process.wait() != 0:
        sys.exit(f"corral run failed: {list(seen)}")
    seen["all gone"] = time.perf_counter() - began
    return seen


def make_plan(folder: Path) -> tuple[Plan, Parts]:
    """The plan of the very same run."""
    spec = load_spec(folder, SIZE, os.environ)
    facts = measure()
    found = layout.survey(spec.workspace.path, unprotect=(), protected=PROTECTED, is_masked=None)
    plan = build(spec, facts, found, os.environ, jail_filters(spec, facts))
    return plan, prepare(plan, facts, silent)


def floor(plan: Plan, parts: Parts, folder: Path) -> float:
    """Seconds until the trivial init has printed its line."""
    empty = folder / "empty"
    empty.touch()
    argv = list(
        render.qemu(plan, parts.facts, str(parts.kernel.image), str(parts.base.path), str(empty))
    )
    at = argv.index("-append") + 1
    argv[at] = argv[at].partition("rdinit=")[0] + TRIVIAL_INIT
    pairs = {
        number: socket.socketpair()
        for number in (render.QMP_FD, render.CONSOLE_FD, render.CHANNEL_FD)
    }
    ram = os.memfd_create("ram")
    os.ftruncate(ram, plan.machine.memory)
    fds = {number: theirs.fileno() for number, (_ours, theirs) in pairs.items()}
    high = {number: os.dup(fd) for number, fd in {**fds, render.RAM_FD: ram}.items()}
    began = time.perf_counter()
    pid = os.posix_spawn(
        argv[0],
        argv,
        {"PATH": "/usr/bin"},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items()],
    )
    console, said = pairs[render.CONSOLE_FD][0], b""
    while ITS_WORDS not in said:
        said += console.recv(4096)
    took = time.perf_counter() - began
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for fd in (ram, *high.values()):
        os.close(fd)
    for pair in pairs.values():
        for end in pair:
            end.close()
    return took


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "", runs=5)
    with workspace() as folder:
        plan, parts = make_plan(folder)
        cold_run(folder)  # caches warm, and everything built
        runs, floors = [], []
        for _ in range(options.runs):
            floors.append(floor(plan, parts, folder))
            runs.append(cold_run(folder))
    base = median(floors)
    middle = {name: median([run[name] for run in runs]) for name in runs[-1]}
    bar = FACTOR * base + ALLOWANCE
    done = middle["exited"]
    rows = [
        ("accelerator", plan.machine.accel),
        ("floor: boot to a trivial init", f"{base:.2f} s"),
        ("planned, QEMU being started", f"{middle['boot']:.2f} s"),
        ("guest ready, set-up begins", f"{middle['agent']:.2f} s"),
        ("jail up, command started", f"{middle['started']:.2f} s"),
        ("command done", f"{done:.2f} s = {done / base:.2f} x floor"),
        ("everything gone", f"{middle['all gone']:.2f} s"),
        ("bar: 1.5 x floor + 1.0 s", f"{bar:.2f} s: {'met' if done <= bar else 'MISSED'}"),
    ]
    show(f"cold start, medians of {options.runs}", rows, as_json=options.json)


if __name__ == "__main__":
    main()
