"""`corral gc` removes what can be had again and what was left behind; --dry-run only tells."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from corral.images.locks import locked

from .conftest import Typed


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a megabyte in it."""
    folder = tmp_path / "cache"
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "vmlinux").write_bytes(os.urandom(1 << 20))
    return folder


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """The run folder of a sandbox that is gone: its lock is held by nobody."""
    folder = tmp_path / "runtime" / "corral" / "demo-123456"
    folder.mkdir(parents=True)
    for part in (folder, folder.parent, folder.parent.parent):
        part.chmod(0o700)
    (folder / "lock").touch()
    return folder


def test_a_dry_run_tells_and_removes_nothing(typed: Typed, cache: Path, abandoned: Path) -> None:
    finished = typed("gc", "--dry-run", XDG_RUNTIME_DIR=str(abandoned.parents[1]))
    assert finished.returncode == 0
    assert "would free 1.0 MB" in finished.stdout
    assert f"would remove {abandoned}" in finished.stdout
    assert (cache / "kernels" / "vmlinux").exists()
    assert abandoned.exists()


def test_it_clears_the_cache_and_removes_what_was_left_behind(
    typed: Typed, cache: Path, abandoned: Path
) -> None:
    finished = typed("gc", XDG_RUNTIME_DIR=str(abandoned.parents[1]))
    assert finished.returncode == 0
    assert "freed 1.0 MB" in finished.stdout
    assert f"removed {abandoned}" in finished.stdout
    assert list(cache.iterdir()) == []
    assert not abandoned.exists()


def test_a_script_gets_json(typed: Typed, cache: Path, abandoned: Path, tmp_path: Path) -> None:
    folders = {
        "XDG_RUNTIME_DIR": str(abandoned.parents[1]),
        "CORRAL_STATE_DIR": str(tmp_path / "state"),
    }
    finished = typed("gc", "--json", **folders)
    said = json.loads(finished.stdout)
    assert said["run_folders"] == [str(abandoned)]
    assert said["left_behind"] == []
    assert said["cache_bytes"] >= 1 << 20
    assert said["dry_run"] is False


def test_logs_kept_on_purpose_go_and_a_running_sandboxs_folder_stays(
    typed: Typed, cache: Path, abandoned: Path
) -> None:
    kept, used = abandoned.with_name("kept-1"), abandoned.with_name("used-1")
    for folder in (kept, used):
        folder.mkdir()
    with open(used / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        typed("gc", XDG_RUNTIME_DIR=str(abandoned.parents[1]))
    assert not kept.exists()
    assert used.exists()


def test_a_lock_that_is_held_is_found_by_the_next_who_wants_it(
    typed: Typed, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file in its place would let two make the same thing at once."""
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(cache))
    with locked("kernel"):
        assert typed("gc").returncode == 0
        with open(cache / "locks" / "kernel.lock") as found, pytest.raises(BlockingIOError):
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_killed_fork_left_is_told_and_removed(
    typed: Typed, cache: Path, tmp_path: Path
) -> None:
    half = tmp_path / "state" / "sandboxes" / "app-1"
    (half / "workspace").mkdir(parents=True)
    dry = typed("gc", "-n", CORRAL_STATE_DIR=str(tmp_path / "state")).stdout
    assert f"would remove {half}, left behind by a command" in dry and half.exists()
    assert f"removed {half}" in typed("gc", CORRAL_STATE_DIR=str(tmp_path / "state")).stdout
    assert not half.exists()
