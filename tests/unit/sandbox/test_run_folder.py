"""Run folders: private, gone afterwards, and swept when their owner could not do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import HostError
from corral.sandbox.run_folder import run_folder, sweep

OWNER = """
import sys
from corral.sandbox.run_folder import run_folder
with run_folder("mine", keep="keep" in sys.argv):
    print("made", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "corral"


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """Another corral, which has a run folder of its own."""
    with start_owner() as process:
        yield process
        process.kill()


def start_owner(*arguments: str, point: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CORRAL_TEST_CRASH_AT": point},
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_it_is_private_and_gone_afterwards(root: Path) -> None:
    with run_folder("a-name") as folder:
        assert folder.parent == root and folder.name.startswith("a-name-")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "empty").read_bytes() == b""
        assert sweep() == [], "it is in use"
        assert folder.is_dir()
    assert not list(root.iterdir())


def test_one_in_use_by_another_process_stays(root: Path, owner: subprocess.Popen[str]) -> None:
    assert sweep() == []
    assert len(list(root.iterdir())) == 1
    owner.kill()
    owner.wait()
    (swept,) = sweep()
    assert swept.name.startswith("mine-")
    assert not list(root.iterdir())


@pytest.mark.parametrize("point", ["run-folder-unfinished", "run-folder-locked", "run-folder-made"])
def test_one_that_was_abandoned_half_made_is_swept_at_once(root: Path, point: str) -> None:
    with start_owner(point=point) as killed:
        assert killed.wait() == -signal.SIGKILL
    assert len(list(root.iterdir())) == 1
    assert len(sweep()) == 1
    assert not list(root.iterdir())


def test_one_that_is_being_made_is_not_swept(root: Path) -> None:
    """A sweep just when another corral, here stopped, makes its folder."""
    code = OWNER.replace(
        "import sys",
        "import os, sys, signal\n"
        "from corral.sandbox import run_folder as module\n"
        "def stop(point):\n"
        "    if point == 'run-folder-locked':\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "module.crash_point = stop\n",
        1,
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        swept = sweep()
        other.send_signal(signal.SIGCONT)
        assert other.stdout.readline() == "made\n"
        assert swept == sweep() == []
        other.communicate("")
    assert other.returncode == 0
    assert not list(root.iterdir())


def test_one_that_was_kept_on_purpose_stays_until_it_is_asked_for(root: Path) -> None:
    with run_folder("kept", keep=True) as folder:
        (folder / "console.log").write_text("words")
    assert sweep() == []
    assert (folder / "console.log").read_text() == "words"
    assert sweep(kept=True) == [folder]
    assert not list(root.iterdir())


def test_one_to_be_kept_whose_owner_was_killed_is_swept(root: Path) -> None:
    with start_owner("keep") as killed:
        killed.kill()
        killed.wait()
    assert len(sweep()) == 1


def test_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    with run_folder("a"):
        (root / "link").symlink_to(precious)
        assert sweep() == []
    assert (precious / "lock").exists()


def test_where_none_can_be_made_the_error_names_the_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "touch", full)
    message = f"cannot make a run folder in {root}: No space"
    with pytest.raises(HostError, match=message) as caught, run_folder("a"):
        pass
    assert caught.value.hint and "XDG_RUNTIME_DIR" in caught.value.hint
    assert not list(root.iterdir())
