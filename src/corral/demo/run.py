"""A demonstration, from its folder to its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..agents import find, headless
from ..agents.preparing import prepare as prepare_agent
from ..agents.using import reach
from ..errors import HostError
from ..events import Report
from ..gateway.config import TRANSCRIPT
from ..host import Facts
from ..host.limits import capacity
from ..paths import log_dir
from ..sandbox import Sandbox, make_plan, prepare, start
from ..sandbox.network import JOURNAL
from ..scripted import Models, Reply, Seen
from ..spec import Extra, Spec, collect, load_spec
from .attempts import Aims, attempts
from .judging import changed, judged, went_out, work
from .model import Attempt, Outcome, Step
from .stage import FILE, GATEWAY, LAST, TASK, WORK, Stage

NAME = "demo"
SECONDS = 280.0  # that the agent may take
PROGRAM = "/demo/agent.py"  # ours, in the sandbox
MAX_KEPT = 1 << 16  # bytes of what the agent's program says on standard error that are kept


class Wanted(Struct, kw_only=True):
    """What is wanted. base: an empty folder for all that it makes. agent: whose recipe; None: the
    small one that comes with the demonstration. told: hears of each step as it is made."""

    base: Path
    agent: str | None
    facts: Facts
    environ: Mapping[str, str]
    report: Report
    told: Callable[[Step], None]


async def demonstrate(wanted: Wanted) -> Outcome:
    """Carry it out. Raises CorralError where the sandbox or the agent cannot be started."""
    stage = Stage(wanted.base)
    async with _nobody() as nobody:
        aims = Aims(
            secret=str(stage.outside / "secret"),
            port=nobody.port,
            gateway=f"{GATEWAY}.corral.internal",
            mark=stage.mark,
        )
        tried = attempts(aims)
        steps = (*WORK, *(attempt.step for attempt in tried))
        async with Models(script=_script(steps), report=_teller(steps, wanted.told)) as models:
            with _apart(stage, models.url) as environ:
                before, git = stage.source(), stage.git()
                began = time.monotonic()
                status, complaint = await _in_sandbox(wanted, stage, environ)
                seconds = time.monotonic() - began
                answers = _answers(models.seen)
                connections = tuple(_lines(log_dir(NAME) / JOURNAL))
                out = went_out(connections, aims.gateway)
                host = {"git": changed(git, stage.git()), "internet": out, "network": out}
                outcome = Outcome(
                    agent=wanted.agent or "the demonstration's own",
                    status=status,
                    complaint=complaint,
                    work=work(answers[: len(WORK)], before, stage.source(), FILE),
                    attempts=tuple(
                        judged(attempt, answer, (stage.key, stage.secret), host.get(attempt.name))
                        for attempt, answer in _paired(tried, answers[len(WORK) :])
                    ),
                    exchanges=tuple(_lines(log_dir(NAME) / "gateway" / TRANSCRIPT)),
                    connections=connections,
                    dialled=nobody.dialled,
                    seconds=round(seconds, 1),
                )
    return outcome


def _script(steps: Sequence[Step]) -> tuple[Reply, ...]:
    calls = [Reply(text=step.says, tools=(("Bash", {"command": step.command}),)) for step in steps]
    return (*calls, Reply(text=LAST))


def _teller(steps: Sequence[Step], told: Callable[[Step], None]) -> Callable[[Seen], None]:
    """Tells of each step when it is asked for first."""
    after = 0

    def tell(seen: Seen) -> None:
        nonlocal after
        place = len(seen.results)
        if seen.offers_tools and after <= place < len(steps):
            after = place + 1
            told(steps[place])

    return tell


def _answers(seen: Sequence[Seen]) -> tuple[str, ...]:
    """What the tools answered in the longest conversation."""
    return max((each.results for each in seen), key=len, default=())


def _paired(
    tried: Sequence[Attempt], answers: Sequence[str]
) -> Iterator[tuple[Attempt, str | None]]:
    for place, attempt in enumerate(tried):
        yield attempt, answers[place] if place < len(answers) else None


async def _in_sandbox(wanted: Wanted, stage: Stage, environ: Mapping[str, str]) -> tuple[int, str]:
    """The status of the agent's program, and what it said on standard error."""
    spec, argv = _planned(wanted, stage, environ)
    plan = make_plan(spec, wanted.facts, environ)
    parts = prepare(plan, wanted.facts, wanted.report)
    async with start(plan, parts, wanted.report) as sandbox:
        return await _worked(sandbox, argv)


def _planned(
    wanted: Wanted, stage: Stage, environ: Mapping[str, str]
) -> tuple[Spec, tuple[str, ...]]:
    """The sandbox and the agent's command line. All hosts are asked for, and none is allowed."""
    settings: dict[str, object] = {
        "name": NAME,
        "network.mode": "allow",
        "network.gateways": [GATEWAY],
        "share": [f"{stage.program}:/demo"],
    }
    extra: Extra | None = None
    argv: tuple[str, ...] = ("python3", PROGRAM, TASK)
    if wanted.agent is not None:
        recipe = find(wanted.agent)
        loaded = collect(stage.project, settings, environ, capacity=capacity())
        way = reach(recipe, loaded, environ)
        use = prepare_agent(recipe, loaded, environ, wanted.report, way)
        extra, argv = use.extra(), use.argv(headless(recipe, TASK, use.reached))
    spec = load_spec(stage.project, settings, environ, capacity=capacity(), extra=extra, alone=True)
    return spec, argv


async def _worked(sandbox: Sandbox, argv: Sequence[str]) -> tuple[int, str]:
    execution = await sandbox.exec(argv)
    await execution.stdin.end()
    try:
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            status = group.create_task(execution.wait(), name="status")
            group.create_task(_read(execution.stdout), name="output")
            assert execution.stderr is not None
            complaint = group.create_task(_read(execution.stderr), name="complaints")
    except TimeoutError as error:
        raise HostError(
            f"the agent was not done after {SECONDS:.0f} s.",
            hint="On a busy host under emulation that can happen: try again.",
        ) from error
    return status.result(), complaint.result().decode(errors="replace")


async def _read(stream: Any) -> bytes:
    """All of a stream, the last of it kept."""
    kept = b""
    while piece := await stream.read():
        kept = (kept + piece)[-MAX_KEPT:]
    return kept


class _Nobody:
    """A listener on this machine's loopback, to which no connection may come."""

    def __init__(self) -> None:
        self.port = self.dialled = 0

    def connected(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count, answer and hang up."""
        self.dialled += 1
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nreached\n")
        writer.close()


@contextlib.asynccontextmanager
async def _nobody() -> AsyncIterator[_Nobody]:
    nobody = _Nobody()
    server = await asyncio.start_server(nobody.connected, "127.0.0.1", 0)
    nobody.port = server.sockets[0].getsockname()[1]
    try:
        yield nobody
    finally:
        server.close()


@contextlib.contextmanager
def _apart(stage: Stage, upstream: str) -> Iterator[Mapping[str, str]]:
    """The environment in which nothing of the user's own settings counts, and all that is kept is
    kept in the demonstration's folder: logs, transcripts, homes of agents."""
    config = stage.base / "config"
    config.mkdir()
    (config / "config.toml").write_text(
        f'[gateway.{GATEWAY}]\nupstream = "{upstream}"\n'
        f"key = {{ file = {json.dumps(str(stage.outside / 'key'))} }}\n"
    )
    values = {"CORRAL_CONFIG_DIR": str(config), "CORRAL_STATE_DIR": str(stage.base / "state")}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield dict(os.environ)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """The records of a log; nothing where there is none."""
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            record = json.loads(line)
            if isinstance(record, dict):
                yield record
