"""A kept sandbox is saved while it runs, gone back to, and forked; its programs go on.

With a real QEMU 10 and Rust's virtiofsd, fetched where this machine has none.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral import Sandbox
from corral.keeper.store import Record
from corral.paths import state_dir
from corral.proc.crash import VARIABLE
from tests.support import corral as command_line

# Works in a folder of the workspace, with a file open there: every line says who wrote it, which
# it is, what the kernel drew, and what the program had drawn by itself before.
WRITER = """
import os, random, socket, sys, time
os.makedirs("sub", exist_ok=True)
os.chdir("sub")
gone = open("gone", "w+"); gone.write("x"); gone.flush(); os.unlink("gone")
log = open("log", "a")
number = 0
while True:
    number += 1
    print(socket.gethostname(), number, os.urandom(8).hex(), file=log, flush=True)
    print(number, flush=True)
    with open(f"touched-by-{socket.gethostname()}", "w"): pass
    time.sleep(0.1)
"""


class Kept:
    """`corral VERB` on kept sandboxes, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """What a command prints that succeeds."""
        done = self.run(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line.command(*arguments),
            cwd=self.folder,
            env=command_line.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def fails(self, *arguments: str) -> str:
        """What a command says that fails."""
        done = self.run(*arguments)
        assert done.returncode != 0 and "Traceback" not in done.stderr, done
        return done.stderr

    def shell(self, name: str, script: str) -> list[str]:
        return self("exec", name, "--", "sh", "-c", script).splitlines()

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name))

    def tags(self, name: str) -> list[str]:
        return [each["tag"] for each in self.inspect(name)["checkpoints"]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A sandbox `app` in which the writer runs, as a command that somebody is connected to."""
    folder = tmp_path_factory.mktemp("checkpoints") / "app"
    folder.mkdir()
    found = Kept(folder)
    found("up", "-d", "--checkpoints")
    attached = command_line.launch(
        folder, ["exec", "app", "--", "python3", "-c", WRITER], stdin=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: len(log(folder)) > 3)
        yield found
    finally:
        names = [row["name"] for row in json.loads(found("ps", "-a", "--json"))]
        found("rm", "-f", *names)
        attached.communicate(timeout=60)


def log(folder: Path) -> list[list[str]]:
    """The writer's lines: host name, number, random bytes."""
    file = folder / "sub/log"
    text = file.read_text() if file.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Another machine's files tell nobody here."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come about in time"
        time.sleep(0.05)


def workspace(name: str) -> Path:
    return state_dir() / "sandboxes" / name / "workspace"


def goes_on(folder: Path, name: str) -> None:
    """The writer writes there, under that host name, further lines."""
    before = len(log(folder))
    wait_for(lambda: len(log(folder)) > before + 2)
    assert log(folder)[-1][0] == name


def test_a_fork_goes_on_in_the_source_and_in_each_copy(kept: Kept) -> None:
    (kept.folder / "mine").write_text("of the host\n")
    os.mkfifo(kept.folder / "pipe")
    said = kept.run("fork", "app", "-n", "2")
    assert said.stdout.split() == ["app-1", "app-2"], said.stderr
    assert "pipe" in said.stderr, "what is not copied is named"
    (kept.folder / "pipe").unlink()
    folders = {"app": kept.folder, "app-1": workspace("app-1"), "app-2": workspace("app-2")}
    for name, folder in folders.items():
        goes_on(folder, name)
    # Each writes to its own only, on from the same point; no random bytes come twice.
    seen: list[str] = []
    for name, folder in folders.items():
        lines = log(folder)
        assert [int(line[1]) for line in lines] == list(range(1, len(lines) + 1)), "no gap"
        assert {line[0] for line in lines} == {"app", name}
        own = [line[2] for line in lines if line[0] == name]
        seen += own if name != "app" else [line[2] for line in lines]
        assert (folder / f"sub/touched-by-{name}").exists(), "its working folder is its own"
        assert (folder / "mine").read_text() == "of the host\n"
    assert len(seen) == len(set(seen))
    # Each knows who it is, and what time it is; its workspace is where it was.
    ids = []
    for name in folders:
        earliest = time.time()
        host, etc, pwd, now, machine = kept.shell(
            name, "hostname; cat /etc/hostname; pwd; date +%s.%N; cat /etc/machine-id"
        )
        assert (host, etc, pwd) == (name, name, str(kept.folder))
        assert earliest - 0.5 < float(now) < time.time() + 0.5
        ids.append(machine)
    assert len(set(ids)) == 3
    shown = {row["name"]: row["workspace"] for row in json.loads(kept("ps", "--json"))}
    assert shown.items() >= {name: str(folder) for name, folder in folders.items()}.items()
    # A copy is a sandbox like any other: it can be stopped, started, forked, removed.
    kept("stop", "app-1")
    assert "is a fork" in kept.fails("up", "app-1", "-d")
    kept("start", "app-1")
    assert kept.shell("app-1", "hostname; cat mine") == ["app-1", "of the host"]
    kept("rm", "-f", "app-1", "app-2")
    assert not workspace("app-1").parent.exists()
    assert kept.tags("app") == []


def test_restore_goes_back_and_leaves_the_workspace_alone(kept: Kept) -> None:
    kept.shell("app", "echo then > /tmp/memory; echo then > shared")
    assert kept("checkpoint", "app", "then").strip() == "then"
    goes_on(kept.folder, "app")
    assert "already" in kept.fails("checkpoint", "app", "then")
    kept.shell("app", "echo now > /tmp/memory; echo now > shared; touch /tmp/new")
    at = int(log(kept.folder)[-1][1])
    kept("restore", "app", "then")
    goes_on(kept.folder, "app")
    assert int(log(kept.folder)[-1][1]) < at + 3, "the program's own count went back"
    found = kept.shell("app", "cat /tmp/memory shared; test ! -e /tmp/new && echo gone")
    assert found == ["then", "now", "gone"]
    # It can be replaced and removed.
    kept("checkpoint", "app", "then", "--force")
    assert kept.tags("app") == ["then"]
    kept("checkpoint", "app", "then", "--remove")
    assert kept.tags("app") == []
    assert "no checkpoint then" in kept.fails("restore", "app", "then")


def test_a_command_that_somebody_is_connected_to_loses_no_output(kept: Kept) -> None:
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 7"
    process = command_line.launch(kept.folder, ["exec", "app", "--", "sh", "-c", script])
    for tag in ("a", "b"):
        kept("checkpoint", "app", tag)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (7, b"")
    assert out.split() == [str(number).encode() for number in range(1, 41)]
    kept("checkpoint", "app", "a", "--remove")
    kept("checkpoint", "app", "b", "--remove")


def test_a_full_disk_is_one_plain_error_and_the_sandbox_runs_on(kept: Kept) -> None:
    folder = state_dir() / "sandboxes/app/checkpoints"
    folder.mkdir(exist_ok=True)
    keeper = Record("app").status().keeper
    if os.getuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    else:  # who cannot mount is told by another errno
        resource.prlimit(keeper, resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
    try:
        said = kept.fails("checkpoint", "app", "large")
        assert "cannot be written" in said and "runs on" in said
        assert "cannot be written" in kept.fails("fork", "app")
        goes_on(kept.folder, "app")
        assert kept.tags("app") == [] and list(folder.iterdir()) == []
        assert not workspace("app-1").exists() and kept.run("inspect", "app-1").returncode != 0
    finally:
        if os.getuid() == 0:
            subprocess.run(["umount", folder], check=True)
        else:
            resource.prlimit(
                keeper, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
    kept("checkpoint", "app", "fits")
    kept("checkpoint", "app", "fits", "--remove")


def test_a_paused_sandbox_and_one_without_checkpoints_say_so(kept: Kept) -> None:
    kept("pause", "app")
    try:
        said = kept.fails("checkpoint", "app")
        assert "paused" in said and "corral resume app" in said
    finally:
        kept("resume", "app")
    kept("up", "plain", "-d", env={"CORRAL_NAME": "plain"})
    assert "--checkpoints" in kept.fails("checkpoint", "plain")
    assert "--checkpoints" in kept.fails("fork", "plain")
    kept("rm", "-f", "plain")


def test_a_damaged_checkpoint_is_refused(kept: Kept) -> None:
    kept("checkpoint", "app", "hurt")
    folder = state_dir() / "sandboxes/app/checkpoints/hurt"
    with open(folder / "state", "r+b") as file:
        file.seek(1000)
        file.write(b"something else")
    assert "is damaged" in kept.fails("restore", "app", "hurt")
    goes_on(kept.folder, "app")  # it was not ended for that
    kept("checkpoint", "app", "hurt", "--remove")


@pytest.mark.parametrize("point", ["checkpoint-written", "fork-copying"])
def test_a_keeper_killed_while_it_saves_leaves_no_half(project: Path, point: str) -> None:
    kept = Kept(project)
    kept("up", "killed", "-d", "--checkpoints", env={VARIABLE: point})
    try:
        verb = ["fork", "killed"] if point == "fork-copying" else ["checkpoint", "killed", "half"]
        said = kept.fails(*verb)
        assert "was killed" in said
        assert kept.tags("killed") == []
        assert "no checkpoint half" in kept.fails("restore", "killed", "half")
        kept("start", "killed")
        left = state_dir() / "sandboxes/killed/checkpoints"
        assert not left.exists() or list(left.iterdir()) == []
        assert "killed-1" not in [row["name"] for row in json.loads(kept("ps", "-a", "--json"))]
        kept("checkpoint", "killed", "whole")
        assert kept.tags("killed") == ["whole"]
    finally:
        kept("rm", "-f", "killed")


def test_a_sandbox_of_a_program_can_be_forked_too(project: Path, tmp_path: Path) -> None:
    settings = {"machine.checkpoints": True, "machine.memory": "768MiB", "machine.cpus": 1}
    forks = state_dir() / "forks"
    with Sandbox(workspace=project, settings=settings) as box:
        writer = box.spawn(["python3", "-c", WRITER])
        wait_for(lambda: len(log(project)) > 2)
        box.files.write("/tmp/memory", b"kept")
        with box.fork() as clone, clone.fork(workspace=tmp_path / "mine") as second:
            names = [sandbox.name for sandbox in (box, clone, second)]
            assert len(set(names)) == 3
            assert clone.workspace is not None and clone.workspace.is_relative_to(forks)
            assert second.workspace == tmp_path / "mine"
            for sandbox in (box, clone, second):
                assert sandbox.workspace is not None
                goes_on(sandbox.workspace, sandbox.name)
                assert sandbox.files.read("/tmp/memory") == b"kept"
        assert not list(forks.iterdir()), "the copy's own workspace is gone with it"
        assert (tmp_path / "mine/sub/log").exists(), "one of the caller's is not"
        writer.end()


def test_a_kept_sandbox_can_be_forked_by_a_program(kept: Kept) -> None:
    with Sandbox.connect("app") as box, box.fork() as clone:
        assert clone.name == "app-1"
        assert clone.exec(["hostname"]).stdout == "app-1\n"
        goes_on(workspace("app-1"), "app-1")
    assert kept.shell("app-1", "hostname") == ["app-1"], "it is kept, too"
    kept("rm", "-f", "app-1")


def test_a_disk_is_saved_and_forked_with_its_sandbox(project: Path) -> None:
    kept = Kept(project)
    kept("up", "disked", "-d", "--checkpoints", "--disk", "1g", "--user", "root")
    try:
        kept.shell("disked", "echo then > /opt/file")
        kept("checkpoint", "disked", "then")
        kept.shell("disked", "echo now > /opt/file; sync")
        kept("fork", "disked")
        assert kept.shell("disked-1", "cat /opt/file; echo copy > /opt/file; sync") == ["now"]
        assert kept.shell("disked", "cat /opt/file") == ["now"]
        kept("restore", "disked", "then")
        assert kept.shell("disked", "cat /opt/file; echo later > /opt/more; sync") == ["then"]
        kept("restart", "disked")
        assert kept.shell("disked", "cat /opt/file /opt/more") == ["then", "later"]
        kept("stop", "disked-1")
        kept("start", "disked-1")
        assert kept.shell("disked-1", "cat /opt/file") == ["copy"], "the disks go on, too"
    finally:
        kept("rm", "-f", "disked")
        kept.run("rm", "-f", "disked-1")
