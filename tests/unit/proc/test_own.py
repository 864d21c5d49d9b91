"""A child of ours that works for the user: nothing that a sandbox wrote is run by it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from corral.gateway.found import Found, Wanted
from corral.policy import Key
from corral.proc.own import ask

PLANTED = "import os, pathlib; pathlib.Path(os.environ['WITNESS']).touch()\n"


async def found(key: Key, environ: dict[str, str]) -> Found:
    """What the child that finds keys says of one."""
    reader, writer = os.pipe()
    try:
        question = msgspec.json.encode([Wanted(name="one", key=key, rejected="")])
        await ask("corral.gateway.keys", question, environment=environ, stdout=writer, timeout=30)
        os.close(writer)
        writer = -1
        with os.fdopen(os.dup(reader), "rb") as file:
            return msgspec.json.decode(file.read(), type=Found)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize", "msgspec", "json", "keyring"])
async def test_modules_in_the_workspace_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / f"{name}.py").write_text(PLANTED)
    monkeypatch.chdir(workspace)
    environ = {
        **os.environ,
        "PYTHONPATH": f"{workspace}:{os.environ.get('PYTHONPATH', '')}",
        "WITNESS": str(tmp_path / "witness"),
    }
    answer = await found(Key(kind="command", value=("/bin/echo", "a-key")), environ)
    assert answer.key == "a-key"
    assert not (tmp_path / "witness").exists()


async def test_a_command_does_not_start_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git credential fill` obeys the .git/config of where it is started, hooks and all."""
    monkeypatch.chdir(tmp_path)
    answer = await found(Key(kind="command", value=("/bin/sh", "-c", "pwd -P")), dict(os.environ))
    assert answer.key == "/"
