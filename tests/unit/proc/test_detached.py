"""A process of ours that outlives us imports nothing that a sandbox wrote."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from corral.proc.detached import start_detached


@pytest.mark.parametrize("name", ["sitecustomize", "msgspec", "json"])
def test_modules_in_the_workspace_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also where the user's PYTHONPATH leads into it, as direnv may have it."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / f"{name}.py").write_text(
        "import os, pathlib; pathlib.Path(os.environ['WITNESS']).touch()\n"
    )
    monkeypatch.chdir(workspace)
    environ = {
        **os.environ,
        "PYTHONPATH": f"{workspace}:{os.environ.get('PYTHONPATH', '')}",
        "WITNESS": str(tmp_path / "witness"),
    }
    log = tmp_path / "log"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = start_detached("corral", ["--version"], environ, log=log, control=theirs.fileno())
    _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    assert "corral" in log.read_text()
    assert not (tmp_path / "witness").exists()
