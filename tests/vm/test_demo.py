"""The demonstration, in a real machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.corral import command, environment

pytestmark = pytest.mark.timeout(200)


def test_the_demonstration_works_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """By the command line, in another folder, which stays as it is."""
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        command("demo", "--json"),
        cwd=here,
        env=environment({"TMPDIR": str(temporary)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    outcome = json.loads(done.stdout)
    assert outcome["held"] and outcome["work"]["done"] and outcome["dialled"] == 0
    ended = {attempt["name"]: attempt["verdict"] for attempt in outcome["attempts"]}
    assert len(ended) == 8 and set(ended.values()) == {"refused"}
    logged = {
        each["name"]: each["verdict"]
        for each in outcome["connections"]
        if each["verdict"] in ("allowed", "denied")
    }
    assert logged.pop("anthropic.corral.internal") == "allowed"
    assert set(logged.values()) == {"denied"}
    assert {"exfiltration.example", "example.com", "metadata.google.internal"} <= set(logged)
    requests = [each for each in outcome["exchanges"] if each["kind"] == "request"]
    assert len(requests) == 12  # three steps of work, eight attempts, the last word
    assert list(here.iterdir()) == []
    assert not list(temporary.glob("corral-demo-*"))
