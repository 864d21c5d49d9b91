"""The folders that copies of a sandbox get: in use they stay, left behind they go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral.sdk.forks import OwnFolder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path))
    return tmp_path


def test_it_is_gone_with_what_is_in_it_when_it_is_closed() -> None:
    own = OwnFolder()
    (own.path / "workspace").mkdir()
    (own.path / "workspace" / "file").touch()
    own.close()
    assert not own.path.exists()


def test_what_a_killed_process_left_goes_with_the_next(state: Path) -> None:
    code = (
        "from corral.sdk.forks import OwnFolder; import os\n"
        "own = OwnFolder(); (own.path / 'workspace').mkdir(); print(own.path, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = Path(done.stdout.strip())
    assert left.is_dir() and left.parent == state / "forks"
    in_use = OwnFolder()
    assert not left.exists()
    another = OwnFolder()
    assert in_use.path.is_dir() and another.path != in_use.path
    another.close()
    in_use.close()
    assert list((state / "forks").iterdir()) == []


def test_one_that_goes_while_it_is_looked_at_is_no_error(state: Path) -> None:
    OwnFolder().close()
    gone = state / "forks" / "fork-gone"
    gone.symlink_to("nowhere")  # listed, and not there when it is opened
    own = OwnFolder()
    own.close()
    gone.unlink()
