"""What the host changes is seen by whatever is started after it, however much is cached."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from corral.events import silent
from corral.host import Virtiofsd
from corral.images.fetch import fetch_tool
from corral.sandbox import Sandbox, start
from tests.support.sandboxes import plan_for, shell, succeeded

# Keeps names and attributes fresh in the guest's caches; holds nothing open for long.
LOOK = "echo up; while :; do cat file; stat file . .git/index; ls . .git; sleep 0.02; done"
ROUNDS = 4


@pytest_asyncio.fixture(scope="module", params=["host's", "rust"])
async def looking(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Sandbox, Path]]:
    """A sandbox in which something looks at the workspace all the time."""
    project = tmp_path_factory.mktemp("coherence") / "project"
    project.mkdir()
    (project / "file").write_text("first")
    subprocess.run(["git", "init", "-q", project], check=True)  # noqa: ASYNC221
    (project / ".git/index").write_bytes(b"")
    plan, parts = plan_for(project)
    if request.param == "rust":
        server = Virtiofsd(program=fetch_tool("virtiofsd", silent), dialect="rust")
        parts = dataclasses.replace(parts, file_server=server)
    async with start(plan, parts, silent) as sandbox:
        execution = await sandbox.exec(("sh", "-c", LOOK))
        await execution.stdout.read()
        drain = asyncio.create_task(_drain(execution.stdout))
        yield sandbox, project
        await execution.signal(9)
        await drain


async def _drain(stream: object) -> None:
    while await stream.read():  # type: ignore[attr-defined]
        pass


async def said(sandbox: Sandbox, script: str) -> str:
    return succeeded(await shell(sandbox, script)).strip()


async def test_changed_content_and_size(looking: tuple[Sandbox, Path]) -> None:
    sandbox, project = looking
    for number in range(ROUNDS):
        text = "x" * (10 + number)
        (project / "file").write_text(text)
        assert await said(sandbox, "stat -c %s file; cat file") == f"{len(text)}\n{text}"


async def test_a_file_that_was_replaced_as_editors_do(looking: tuple[Sandbox, Path]) -> None:
    sandbox, project = looking
    for number in range(ROUNDS):
        (project / "saved").write_text(f"version {number}")
        (project / "saved").rename(project / "file")
        assert await said(sandbox, "cat file") == f"version {number}"


async def test_files_that_come_and_go(looking: tuple[Sandbox, Path]) -> None:
    sandbox, project = looking
    for _ in range(ROUNDS):
        assert await said(sandbox, "test -e new || echo none") == "none"
        (project / "new").write_text("here")
        assert await said(sandbox, "ls new && cat new") == "new\nhere"
        (project / "new").unlink()


async def test_the_repositorys_index_which_is_mounted_apart(
    looking: tuple[Sandbox, Path],
) -> None:
    sandbox, project = looking
    for number in range(ROUNDS):
        (project / ".git/new").write_text(f"{number}")
        (project / ".git/new").rename(project / ".git/index")
        assert await said(sandbox, "cat .git/index") == f"{number}"


async def test_what_the_guest_writes_is_on_the_host_when_the_command_has_ended(
    looking: tuple[Sandbox, Path],
) -> None:
    sandbox, project = looking
    for number in range(ROUNDS):
        await said(sandbox, f"printf {number} > written")
        assert (project / "written").read_text() == f"{number}"


async def test_a_repository_that_the_host_removes_and_makes_anew(
    looking: tuple[Sandbox, Path],
) -> None:
    """Its mounts are gone with it; commands go on (last, as they do not come back)."""
    sandbox, project = looking
    shutil.rmtree(project / ".git")
    await asyncio.sleep(1.5)  # the guest may believe a name for a second
    for _ in range(2):
        assert await said(sandbox, "test -e .git || echo none") == "none"
    subprocess.run(["git", "init", "-q", project], check=True)  # noqa: ASYNC221
    await asyncio.sleep(1.5)
    for _ in range(2):
        assert "HEAD" in await said(sandbox, "ls .git")
