"""Programs that a sandbox leaves in the workspace, where the user's PATH leads: corral runs none.

A project with an activated virtual environment, or with direnv, has its own folders first on PATH.
These attacks need no machine: they say what one could write to its workspace. Each planted program
tells in a file that it was run; that it would have been is shown by a shell with the same PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral import search
from corral.host import System
from corral.host.system import sound_path
from corral.sandbox import make_plan
from corral.spec import load_spec
from tests.support import examples
from tests.unit.host.test_launcher import environment, make_clone

OFTEN_PLANTED = (
    *("bwrap", "git", "qemu-system-x86_64", "qemu-system-aarch64", "virtiofsd", "mke2fs", "tmux"),
    *("vhost-device-vsock", "systemd-run", "sudo", "npm", "node", "python3", "less", "setsid"),
)
LAUNCHERS_OWN = ("uv", "python3", "python3.11", "cmp", "readlink", "mktemp", "flock", "cat", "mv")
ABSENT = "vhost-device-vsock"  # which this machine has nowhere else


class Project:
    """A workspace with programs in it, and the names of those that were run."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "project"
        self.bin = self.folder / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        self.home = base / "home"
        (self.home / "bin").mkdir(parents=True)
        self._mark = base / "ran"

    def plant(self, *names: str) -> None:
        for name in names:
            file = self.bin / name
            file.write_text(f'#!/bin/sh\necho "{name}" >>"{self._mark}"\necho "{name} 99.9.9"\n')
            file.chmod(0o755)

    def ran(self) -> list[str]:
        """Which were run since the last time."""
        names = self._mark.read_text().split() if self._mark.exists() else []
        self._mark.unlink(missing_ok=True)
        return names

    def is_reached(self, path: str) -> bool:
        """The control: whether a shell in the project finds them."""
        subprocess.run(
            ["/bin/sh", "-c", f"{ABSENT} --version"],
            env={"PATH": path},
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        return self.ran() == [ABSENT]


@pytest.fixture
def planted(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.plant(*OFTEN_PLANTED)
    assert System(environ={}).which(ABSENT) is None, "this test needs a program that is nowhere"
    return project


def way(project: Project, name: str) -> str:
    """An item of PATH that leads to the planted programs from inside the project."""
    if name == "folder":
        return str(project.bin)
    if name == "relative":
        return ".venv/bin"
    if name == "empty":
        (project.folder / ABSENT).symlink_to(project.bin / ABSENT)
        return ""
    if name == "linked folder":
        (project.home / "tools").symlink_to(project.bin)
        return str(project.home / "tools")
    if name == "linked program":
        for each in OFTEN_PLANTED:
            (project.home / "bin" / each).symlink_to(project.bin / each)
        return str(project.home / "bin")
    assert name == "out and in again"
    return f"{project.home}/../project/.venv/bin"


WAYS = ("folder", "relative", "empty", "linked folder", "linked program", "out and in again")


@pytest.mark.parametrize("name", WAYS)
def test_no_program_of_the_current_project_is_run_for_being_on_path(
    planted: Project, name: str
) -> None:
    path = f"{way(planted, name)}:{os.environ['PATH']}"
    assert planted.is_reached(path)
    doctor(planted.folder, path, planted.home)
    assert planted.ran() == []


def doctor(folder: Path, path: str, home: Path) -> None:
    """`corral doctor`, which measures everything anew."""
    done = subprocess.run(
        [sys.executable, "-m", "corral", "doctor"],
        cwd=folder,
        env={**os.environ, "PATH": path, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "bubblewrap" in done.stdout, done.stderr


def test_nor_of_a_project_that_a_sandbox_had_before(
    planted: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From another folder, and only what no folder of the system has."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    path = f"{planted.bin}:{os.environ['PATH']}"
    doctor(Path("/"), path, planted.home)
    # The control: so far it is a folder of the user's like any other.
    assert ABSENT in planted.ran()
    spec = load_spec(planted.folder, {}, dict(os.environ))
    make_plan(spec, examples.facts(), dict(os.environ))
    assert str(planted.folder) in search.changeable()
    doctor(Path("/"), path, planted.home)
    assert planted.ran() == []


def test_programs_that_libraries_look_for_are_none_of_the_projects(
    planted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pager, and tmux that libtmux starts, are found by PATH."""
    monkeypatch.chdir(planted.folder)
    monkeypatch.setenv("PATH", f"{planted.bin}:.venv/bin::{os.environ['PATH']}")
    with sound_path():
        for name in (ABSENT, "less"):
            subprocess.run(["/bin/sh", "-c", f"command -v {name} && {name} --version"])
    assert planted.ran() == []
    assert os.environ["PATH"].startswith(str(planted.bin))
    assert planted.is_reached(os.environ["PATH"])


def test_the_launcher_runs_nothing_of_the_project(tmp_path: Path) -> None:
    """./corral, at its first use and later ones: what makes the environment, and compares files."""
    project = Project(tmp_path)
    project.plant(*LAUNCHERS_OWN, ABSENT)
    for name in ("venv.py", "ensurepip.py", "pip.py"):
        (project.folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('module')")
    # Read by a uv that is started there.
    (project.folder / "uv.toml").write_text('index-url = "http://127.0.0.1:9/simple"\n')
    clone = make_clone(tmp_path / "clone")
    path = f"{project.bin}:.venv/bin::{os.environ['PATH']}"
    assert project.is_reached(path)
    for _ in ("first", "second"):
        done = subprocess.run(
            [clone / "corral", "x"],
            cwd=project.folder,
            env=environment(tmp_path / "cache", PATH=path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert project.ran() == []
