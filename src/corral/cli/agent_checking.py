"""`corral agent check`: an agent in a sandbox of its own, before a model that follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..agents import Recipe, headless
from ..agents.checking import FILE, PROMPT, Seen, Step, judge, script
from ..agents.homes import Home, ensure_home, reset_home, seed
from ..agents.output import OutputEvent, Reader
from ..agents.preparing import find
from ..agents.programs import Found
from ..agents.using import Use, reached_by, use
from ..agents.validate import dialects
from ..errors import ExecError
from ..events import Phase, Report
from ..host.limits import capacity
from ..paths import log_dir
from ..policy import Gateway, Key, Network
from ..sandbox import Sandbox, host_facts, make_plan, prepare, start, sweep
from ..scripted import Models
from ..spec import collect, load_spec
from ..spec.gateways import BUILT_IN
from ..spec.text import printable

_MOST = 256 << 10  # bytes of output that are kept, and of a file of the home that are looked at
_VERSION_SECONDS = 120.0  # an emulated machine reads a program of 400 MB for the first time
_HOME_FILES = 2000


@dataclass(frozen=True, slots=True)
class Wanted:
    """seconds: for the whole prompt."""

    recipe: Recipe
    environ: Mapping[str, str]
    assume_yes: bool
    seconds: float


def check(wanted: Wanted, report: Report) -> list[Step]:
    """Do it. Raises CorralError when there can be no sandbox, or no program."""
    with _project() as project:
        program = find(wanted.recipe, wanted.environ, str(project), report)
        home = ensure_home(wanted.recipe, str(project))
        try:
            return asyncio.run(_check(wanted, project, home, program, report))
        finally:
            reset_home(home.folder)
            shutil.rmtree(log_dir(_sandbox(wanted.recipe)), ignore_errors=True)
            with contextlib.suppress(OSError):  # the file with the project's path
                (home.folder.parent / "project").unlink()
                home.folder.parent.rmdir()


def _sandbox(recipe: Recipe) -> str:
    """The sandbox's name: nobody else's, as its logs are removed."""
    return f"check-{recipe.name}-{os.getpid()}"


@contextlib.contextmanager
def _project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="corral-check-") as folder:
        project = Path(folder).resolve() / "project"
        project.mkdir()
        (project / "README.md").write_text("A project that corral made for a check.\n")
        yield project


async def _check(
    wanted: Wanted, project: Path, home: Home, program: Found, report: Report
) -> list[Step]:
    recipe = wanted.recipe
    key = f"sk-check-{secrets.token_urlsafe(32)}"
    seed(recipe, home, str(project))
    async with Models(script=script(recipe)) as models:
        models.default = script(recipe)[-1]
        gateway = _gateway(recipe, models, key, project.parent)
        loaded = collect(project, {}, wanted.environ, capacity=capacity())
        reached = None if gateway is None else reached_by(gateway)
        names = () if gateway is None else (gateway.name,)
        doors = {} if gateway is None else {gateway.name: gateway}
        agent = use(recipe, loaded, program, home, (reached, names, doors))
        agent = msgspec.structs.replace(agent, secrets=())
        spec = load_spec(
            project,
            {"name": _sandbox(recipe)},
            wanted.environ,
            capacity=capacity(),
            extra=agent.extra(),
            alone=True,
        )
        # Of the user's own none is for a check: no key, no host.
        spec = msgspec.structs.replace(
            spec, gateways=tuple(doors.values()), secrets=(), network=Network()
        )
        facts = host_facts(report, assume_yes=wanted.assume_yes)
        plan = make_plan(spec, facts, wanted.environ)
        sweep()
        parts = prepare(plan, facts, report)
        async with start(plan, parts, report) as sandbox:
            report(Phase(name="agent", message=f"trying {recipe.name}"))
            seen = await _tried(wanted, agent, sandbox, models, key)
        leaks = [*seen.leaks, *_in_home(home, key)]
        seen = msgspec.structs.replace(seen, leaks=leaks, file=_written(project))
        return list(judge(recipe, seen, model=reached is not None and bool(recipe.table.headless)))


def _gateway(recipe: Recipe, models: Models, key: str, folder: Path) -> Gateway | None:
    """A gateway to the scripted model; None where none speaks the agent's dialect."""
    fitting = dialects(recipe.table)
    if not fitting:
        return None
    file = folder / "key"
    file.write_text(key + "\n")
    known = next(each for each in BUILT_IN.values() if each.dialect == fitting[0])
    upstream = models.url + ("/v1" if known.dialect == "openai" else "")
    found = Key(kind="file", value=(str(file),))
    return msgspec.structs.replace(known, upstream=upstream, key=found)


async def _tried(wanted: Wanted, agent: Use, sandbox: Sandbox, models: Models, key: str) -> Seen:
    program = agent.program
    version, errors = await _version(sandbox, program.path)
    seen = Seen(
        program=program.path, installed=program.image, version=version, errors=_last(errors)
    )
    if version is None or agent.reached is None or not wanted.recipe.table.headless:
        return seen
    argv = agent.argv(headless(wanted.recipe, PROMPT, agent.reached))
    _status, environment, _errors, _events = await _run(sandbox, ("/usr/bin/env",), 30.0, None)
    reader = Reader(wanted.recipe.table.output)
    status, output, errors, events = await _run(sandbox, argv, wanted.seconds, reader)
    leaks = [
        where
        for where, text in (
            ("its environment", environment),
            ("its output", output),
            ("its errors", errors),
        )
        if key.encode() in text
    ]
    asked = [one for one in models.seen if one.method == "POST"]
    return msgspec.structs.replace(
        seen,
        status=status,
        asked=len(asked),
        keyed=all(any(key in value for value in one.headers.values()) for one in asked),
        results=any(one.results for one in asked),
        leaks=leaks,
        events=events,
        errors=_last(errors or output),
    )


async def _version(sandbox: Sandbox, program: str) -> tuple[str | None, bytes]:
    try:
        status, output, errors, _events = await _run(
            sandbox, (program, "--version"), _VERSION_SECONDS, None
        )
    except ExecError as error:
        return None, error.message.encode()
    if status != 0:
        return None, errors or output or b"it did not start in time"
    return _last(output or errors), b""


async def _run(
    sandbox: Sandbox, argv: tuple[str, ...], seconds: float, reader: Reader | None
) -> tuple[int | None, bytes, bytes, list[OutputEvent]]:
    """(status, or None when it took too long; the ends of both outputs; events)."""
    execution = await sandbox.exec(argv)
    await execution.stdin.end()
    outputs = (bytearray(), bytearray())
    events: list[OutputEvent] = []

    async def drain(number: int) -> None:
        stream = execution.stderr if number else execution.stdout
        while stream is not None and (data := await stream.read()):
            outputs[number].extend(data)
            del outputs[number][:-_MOST]
            if reader is not None and number == 0:
                events.extend(reader.feed(data))

    status: int | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            group.create_task(drain(0))
            group.create_task(drain(1))
            status = await execution.wait()
    if reader is not None:
        events += reader.end()
    return status, bytes(outputs[0]), bytes(outputs[1]), events


def _last(output: bytes) -> str:
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return printable(lines[-1], 200) if lines else ""


def _written(project: Path) -> str | None:
    """What the sandbox wrote: no link is followed, and not more than a little is read."""
    from ..agents.beneath import opened, read_file

    with contextlib.suppress(OSError), opened(str(project), ()) as folder:
        content = read_file(folder, FILE, 4096)
        return None if content is None else content.decode("utf-8", "replace")
    return None


def _in_home(home: Home, key: str) -> Iterator[str]:
    """Files of the agent's home that hold the key."""
    from ..agents.beneath import read_file

    count = 0
    for path, _folders, names, descriptor in os.fwalk(home.root):
        for name in names:
            count += 1
            if count > _HOME_FILES:
                return
            with contextlib.suppress(OSError):
                if key.encode() in (read_file(descriptor, name, _MOST) or b""):
                    yield printable(f"~/{os.path.relpath(path, home.root)}/{name}", 200)
