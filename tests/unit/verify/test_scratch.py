"""The folder that a verification works in."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from corral.verify.scratch import scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_private_and_gone_afterwards(temporary: Path) -> None:
    with scratch() as folder:
        (folder / "file").write_text("x")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_what_a_killed_one_left_is_removed_by_the_next_and_one_in_use_is_not(
    temporary: Path,
) -> None:
    code = (
        "from corral.verify.scratch import scratch\n"
        "import tempfile, time, sys\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "with scratch() as folder:\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(100)\n"
    )
    argv = [sys.executable, "-c", code, str(temporary)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with scratch():
            assert theirs.exists()
        other.send_signal(signal.SIGKILL)
    assert theirs.exists()
    with scratch() as ours:
        assert list(temporary.iterdir()) == [ours]


def test_links_and_files_of_that_name_are_left_alone(temporary: Path) -> None:
    target = temporary / "target"
    target.mkdir()
    (temporary / "corral-verify-link").symlink_to(target)
    (temporary / "corral-verify-file").touch()
    with scratch():
        pass
    assert sorted(path.name for path in temporary.iterdir()) == [
        "corral-verify-file",
        "corral-verify-link",
        "target",
    ]
