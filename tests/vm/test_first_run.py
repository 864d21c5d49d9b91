"""The README's first command, end to end."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.conftest import Corral


@pytest.mark.parametrize(
    "how",
    [("--carrier", "serial"), ("--carrier", "vsock"), ("--filesystem", "9p")],
    ids=["serial", "vsock", "9p"],
)
def test_a_command_runs_in_a_machine_of_its_own_and_writes_back(
    corral: Corral, project: Path, how: tuple[str, ...]
) -> None:
    done = corral(
        "run",
        *how,
        "--",
        "sh",
        "-c",
        "uname -r; id -u; pwd; echo said >/dev/stderr; echo done > result.txt; exit 7",
    )
    assert done.returncode == 7, done.stderr
    kernel, uid, folder = done.stdout.splitlines()
    assert kernel != platform.release(), "it must be another kernel than the host's"
    assert uid == str(os.getuid())
    assert folder == str(project)
    assert "said" in done.stderr
    result = project / "result.txt"
    assert result.read_text() == "done\n"
    assert result.stat().st_uid == os.getuid()
