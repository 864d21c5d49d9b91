"""Sandboxes for tests: the one place that starts machines, and what tests ask of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from corral.events import Report, silent
from corral.host import measure
from corral.plan import Plan
from corral.sandbox import Parts, Sandbox, make_plan, prepare, start
from corral.spec import Spec, load_spec

DEFAULTS: dict[str, object] = {"machine.cpus": 1, "machine.memory": "768MiB"}
GUEST_PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a command in a sandbox ended."""

    status: int
    stdout: str
    stderr: str


def plan_for(
    folder: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    force: bool = False,
    kept: bool = False,
) -> tuple[Plan, Parts]:
    """The plan and parts of a sandbox on `folder`, with a small machine unless told otherwise."""
    spec = load_spec(folder, {**DEFAULTS, **(overrides or {})}, os.environ, force=force)
    return planned(spec, kept=kept)


def planned(spec: Spec, *, kept: bool = False) -> tuple[Plan, Parts]:
    """The plan and parts of what a spec wants."""
    facts = measure()
    plan = make_plan(spec, facts, os.environ, kept=kept)
    return plan, prepare(plan, facts, silent)


@contextlib.asynccontextmanager
async def sandbox_on(
    folder: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    report: Report = silent,
    console_echo: int | None = None,
) -> AsyncIterator[Sandbox]:
    """A running sandbox on `folder`."""
    plan, parts = plan_for(folder, overrides)
    async with start(plan, parts, report, console_echo=console_echo) as sandbox:
        yield sandbox


@contextlib.asynccontextmanager
async def with_disk(
    project: Path, file: Path, size: str = "1GiB", seccomp: str = "default"
) -> AsyncIterator[Sandbox]:
    """A sandbox on a project with a disk in a file."""
    wanted = {"machine.disk": size, "run.user": "root", "run.seccomp": seccomp}
    plan, parts = plan_for(project, wanted, kept=True)
    async with start(plan, parts, silent, disk=file) as sandbox:
        yield sandbox


async def run(
    sandbox: Sandbox,
    *argv: str,
    input: bytes = b"",
    agent: int = 1,
    environment: Mapping[str, str] | None = None,
    workdir: str | None = None,
    timeout: float = 60,
) -> Result:
    """Run a command in agent 1's jail (agent 0: as the guest's root, outside every jail)."""
    execution = await sandbox.exec(argv, agent=agent, environment=environment, workdir=workdir)
    assert execution.stderr is not None

    async def feed() -> None:
        with contextlib.suppress(Exception):
            await execution.stdin.write(input)
            await execution.stdin.end()

    async def read(stream: object) -> bytes:
        data = b""
        while piece := await stream.read():  # type: ignore[attr-defined]
            data += piece
        return data

    async with asyncio.timeout(timeout):
        status, out, err, _ = await asyncio.gather(
            execution.wait(), read(execution.stdout), read(execution.stderr), feed()
        )
    return Result(status, out.decode(errors="replace"), err.decode(errors="replace"))


async def shell(sandbox: Sandbox, script: str, **options: object) -> Result:
    """Run a shell script in the jail."""
    return await run(sandbox, "sh", "-c", script, **options)  # type: ignore[arg-type]


async def python(sandbox: Sandbox, code: str, **options: object) -> Result:
    """Run Python code in the jail, with the host's Python from the toolbox."""
    return await run(sandbox, "python3", "-c", code, **options)  # type: ignore[arg-type]


async def guest_root(sandbox: Sandbox, code: str, **options: object) -> Result:
    """Run Python code as the guest's real root, outside every jail: what a kernel exploit gives.

    The base image's interpreter, with the standard library that the supervisor needs (os, socket,
    ctypes, struct, fcntl, json, select, ...), and `corral_guest.linux` for mounts.
    """
    return await run(sandbox, *GUEST_PYTHON, code, agent=0, **options)  # type: ignore[arg-type]


def succeeded(result: Result) -> str:
    """The output of a command that must have succeeded."""
    assert result.status == 0, f"status {result.status}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def lines(result: Result) -> Sequence[str]:
    """The output of a successful command, by line."""
    return succeeded(result).splitlines()
