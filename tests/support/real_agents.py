"""Real agent programs through `corral run`, before scripted model servers behind the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corral.scripted import Models, Reply
from tests.support.corral import command, environment
from tests.support.gateways import KEY, configure
from tests.support.secret_sites import in_memory

PLACEHOLDER = "held-by-corral-on-the-host"
MARK = "the-model-said-so-0123456789"  # the last words of the model, to be found by the control
# What a tool of the agent looks for: the key's placeholder is found, the key is not.
SEARCH = (
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep API_KEY; "
    "echo changed > file.txt; echo carried-out"
)
SECONDS = 400  # for one agent under emulation on a host that is busy


@dataclass
class Project:
    """A project, the user's configuration and state. name: of its sandboxes."""

    base: Path
    name: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The workspace."""
        return self.base / self.name

    def transcript(self) -> list[dict[str, Any]]:
        """What the gateway has written."""
        path = self.base / "state" / "logs" / self.name / "gateway" / "transcript.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@contextlib.contextmanager
def project(base: Path, name: str, models: Models) -> Iterator[Project]:
    """A project with git, and a user whose gateways lead to the scripted servers."""
    found = Project(base, name)
    (found.folder / ".git").mkdir(parents=True)
    (found.folder / "a.txt").write_text("a\n")
    found.variables = {
        "CORRAL_CONFIG_DIR": str(base / "config"),
        "CORRAL_STATE_DIR": str(base / "state"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_CONFIG_DIR", str(base / "config"))
        configure(models, base)
    yield found


@dataclass(frozen=True)
class Worked:
    """What an agent did. answers: what its tools answered. mark, key: found in its memory."""

    status: int
    stdout: str
    stderr: str
    answers: tuple[str, ...]
    mark: bool
    key: bool


async def worked(
    project: Project, models: Models, call: tuple[str, Mapping[str, object] | str], *words: str
) -> Worked:
    """Run `corral run WORDS`: an agent that makes one call and is asked again.

    While it waits for its last answer, all of the machine's memory is searched.
    """
    asked_again, searched = asyncio.Event(), asyncio.Event()

    async def hold(number: int) -> None:
        if number == 1:
            asked_again.set()
            await searched.wait()

    models.script = (Reply(text=MARK, tools=(call,)), Reply(text="All done.", pace=hold))
    models.seen.clear()
    process = await asyncio.create_subprocess_exec(
        *command("run", *words),
        cwd=project.folder,
        env=environment(project.variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ending = asyncio.ensure_future(process.communicate())
    try:
        async with asyncio.timeout(SECONDS):
            waiting = asyncio.ensure_future(asked_again.wait())
            await asyncio.wait((ending, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            mark = key = False
            if asked_again.is_set():
                with memory_of(process.pid) as memory:
                    mark = await asyncio.to_thread(in_memory, memory, MARK.encode())
                    key = await asyncio.to_thread(in_memory, memory, KEY[12:].encode())
            searched.set()
            stdout, stderr = await ending
    finally:
        if process.returncode is None:
            process.kill()
            await ending
    answers = models.seen[-1].results if models.seen else ()
    status = process.returncode
    assert status is not None
    return Worked(status, stdout.decode(), stderr.decode(), answers, mark, key)


@contextlib.contextmanager
def memory_of(pid: int) -> Iterator[int]:
    """The memory of the machine that this corral runs: its largest memfd."""
    folder = Path(f"/proc/{pid}/fd")
    memfds = [each for each in folder.iterdir() if "/memfd:" in str(each.readlink())]
    memory = os.open(max(memfds, key=lambda each: each.stat().st_size), os.O_RDONLY)
    try:
        yield memory
    finally:
        os.close(memory)


def check(done: Worked, where: Project, models: Models, path: str, variable: str) -> None:
    """It has worked, both requests are written down, and the key was nowhere in the machine."""
    assert done.status == 0, done.stderr
    assert (where.folder / "file.txt").read_text() == "changed\n"
    assert "All done." in done.stdout
    (answer,) = done.answers
    assert f"{variable}={PLACEHOLDER}" in answer and "carried-out" in answer
    asked = [seen for seen in models.seen if seen.path == path]
    assert len([seen for seen in asked if seen.offers_tools]) == 2
    assert all(KEY in str(seen.headers) for seen in asked)
    records = where.transcript()
    for kind in ("request", "response"):
        bodies = [json.dumps(each.get("body")) for each in records if each["kind"] == kind]
        assert len(bodies) >= 2 and any("carried-out" in body for body in bodies)
    assert KEY not in json.dumps(records)
    assert done.mark and not done.key  # what the model said is in the machine's memory
