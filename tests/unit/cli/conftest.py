"""The command line as a user meets it, in a process of its own and within this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Finished = subprocess.CompletedProcess[str]
Typed = Callable[..., Finished]


@pytest.fixture
def typed(project: Path, tmp_path: Path) -> Typed:
    """typed("gc", "--dry-run"): what `corral gc --dry-run` does, with an empty cache."""

    def run(*arguments: str, **environment: str) -> Finished:
        return subprocess.run(
            [sys.executable, "-m", "corral", *arguments],
            cwd=project,
            env={**os.environ, "CORRAL_CACHE_DIR": str(tmp_path / "cache"), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
