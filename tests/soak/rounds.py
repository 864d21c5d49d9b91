"""One sandbox after the other, several at a time, each ended in a way that chance decides.

The seed decides who is killed and when; what a machine does meanwhile is its own affair, so a
failure may need more than one run to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from corral.errors import CorralError
from corral.events import silent
from corral.keeper.store import Record
from corral.sandbox import start
from tests.support.corral import environment
from tests.support.sandboxes import plan_for, shell

KINDS = ("run", "kept", "inside")
# Who is killed: what the command line of the process has, or the process that the kind itself
# started ("owner"), or nobody.
VICTIMS = ("nobody", "owner", "qemu-system", "virtiofsd", "warden.py", "bwrap")
LATEST = 2.0  # seconds after the start at which somebody is killed
PATIENCE = 120.0  # seconds for any one step
MEMORY = "512MiB"


@dataclasses.dataclass(frozen=True)
class Fate:
    """What is to happen to one sandbox. after: seconds from its start."""

    number: int
    kind: str
    victim: str
    after: float


class Soak:
    """All rounds and what they came to."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self._folder = folder
        chance = random.Random(seed)
        self._fates = iter(
            [
                Fate(
                    number,
                    KINDS[number % len(KINDS)],
                    chance.choice(VICTIMS),
                    chance.uniform(0, LATEST),
                )
                for number in range(count)
            ]
        )
        self.ends: Counter[str] = Counter()
        self.failures: list[str] = []

    async def run(self, together: int) -> None:
        """All of them, so many at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(together):
                group.create_task(self._work())

    async def _work(self) -> None:
        for fate in self._fates:
            project = self._folder / f"project-{fate.number}"
            project.mkdir()
            try:
                async with asyncio.timeout(PATIENCE):
                    await getattr(self, f"_{fate.kind}")(fate, project)
            except TimeoutError:
                self.failures.append(f"{fate}: not over after {PATIENCE:g} s")
            self.ends[f"{fate.kind}, {fate.victim} killed"] += 1

    async def _run(self, fate: Fate, project: Path) -> None:
        """`corral run`."""
        seconds = "0" if fate.victim == "nobody" else "30"
        script = f"echo hello > result; sleep {seconds}"
        process = await self._corral(project, "run", "--memory", MEMORY, "--", "sh", "-c", script)
        killing = asyncio.create_task(_kill(fate, process.pid), name=f"kill-{fate.number}")
        _output, complaints = await process.communicate()
        await killing
        self._judge(fate, process.returncode, complaints)
        if fate.victim == "nobody" and (project / "result").read_text() != "hello\n":
            self.failures.append(f"{fate}: what it wrote is not there")

    async def _kept(self, fate: Fate, project: Path) -> None:
        """`corral up`, a command, `corral rm`."""
        name = project.name
        up = await self._corral(project, "up", name, "-d", "--memory", MEMORY)
        _output, complaints = await up.communicate()
        self._judge(fate, up.returncode, complaints, undisturbed=True)
        keeper = Record(name).written_status().keeper
        seconds = "0" if fate.victim == "nobody" else "30"
        command = await self._corral(project, "exec", name, "--", "sleep", seconds)
        killing = asyncio.create_task(_kill(fate, keeper), name=f"kill-{fate.number}")
        _output, complaints = await command.communicate()
        await killing
        self._judge(fate, command.returncode, complaints)
        remove = await self._corral(project, "rm", "-f", name)
        _output, complaints = await remove.communicate()
        self._judge(fate, remove.returncode, complaints, undisturbed=True)

    async def _inside(self, fate: Fate, project: Path) -> None:
        """In this process, as the SDK does; its owner cannot be killed."""
        plan, parts = await asyncio.to_thread(plan_for, project, {"machine.memory": MEMORY})
        try:
            async with start(plan, parts, silent) as sandbox:
                helper = psutil.Process(sandbox.machine.pid)
                below = [helper, *helper.children(recursive=True)]
                killing = asyncio.create_task(_kill(fate, helper.pid, own=False))
                seconds = "0" if fate.victim in ("nobody", "owner") else "30"
                result = await shell(sandbox, f"sleep {seconds}")
                await killing
                if result.status != 0:
                    self.failures.append(f"{fate}: {result}")
        except CorralError as error:
            if fate.victim in ("nobody", "owner"):
                self.failures.append(f"{fate}: {error.message}")
            elif not error.message:
                self.failures.append(f"{fate}: an error without a word")
        for process in below:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                self.failures.append(f"{fate}: {process} is left")

    async def _corral(self, project: Path, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "corral", *arguments),
            cwd=project,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    def _judge(
        self, fate: Fate, status: int | None, complaints: bytes, *, undisturbed: bool = False
    ) -> None:
        text = complaints.decode(errors="replace")
        fault = any(each in text for each in ("Traceback", "never retrieved", "internal error"))
        if fault or (status != 0 and (undisturbed or fate.victim == "nobody")):
            self.failures.append(f"{fate}: status {status}: {text}")
        elif status and status > 0 and not text.startswith("corral: "):
            self.failures.append(f"{fate}: status {status} and no clear error: {text!r}")


async def _kill(fate: Fate, owner: int, *, own: bool = True) -> None:
    """Kill the victim below `owner` when its time has come; if there is none, the owner.

    own: the owner is a process that may be killed.
    """
    await asyncio.sleep(fate.after)
    if fate.victim == "nobody" or (fate.victim == "owner" and not own):
        return
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        process = psutil.Process(owner)
        found = [] if fate.victim == "owner" else list(_below(process, fate.victim))
        victim = random.Random(fate.number).choice(found) if found else process
        os.kill(victim.pid, signal.SIGKILL)


def _below(owner: psutil.Process, word: str) -> Iterator[psutil.Process]:
    for process in owner.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            argv = process.cmdline()
            wrapper = Path(argv[0]).name == "bwrap" if argv else False
            if wrapper == (word == "bwrap") and any(word in each for each in argv):
                yield process
