"""What docs/sdk.md shows is what happens: each of its examples is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.corral import command, environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sdk.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
KEPT = [each for each in EXAMPLES if "connect" in each]
NEW = [each for each in EXAMPLES if each not in KEPT]


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        cwd=folder,
        env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_page_has_its_examples() -> None:
    assert len(NEW) >= 5 and len(KEPT) == 1


@pytest.mark.parametrize("example", NEW, ids=lambda each: re.sub(r"\W+", " ", each)[:40])
def test_an_example_runs(example: str, project: Path) -> None:
    run(example, project)


def test_the_example_with_a_kept_sandbox_runs(project: Path) -> None:
    name = f"page-{os.getpid()}"
    for arguments in (("up", name, "-d"), ("rm", "-f", name)):
        done = subprocess.run(
            command(*arguments), cwd=project, env=environment(), capture_output=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        if arguments[0] == "up":
            assert "load average" in run(KEPT[0].replace('"app"', repr(name)), project)
