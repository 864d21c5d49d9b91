"""Changes under review: what an agent leaves in its snapshot reaches the host by a yes, or not.

The trees here are an agent's, with everything that the host's file system lets it make.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.cli.diff import _for_a_person
from corral.errors import ReviewError
from corral.host.copies import MAX_DEPTH
from corral.proc.crash import VARIABLE
from corral.review import applying, showing
from corral.review import dangers as judging
from corral.review import tree as looking
from corral.review.applying import Outcome
from corral.review.store import Review
from tests.support.corral import command, environment
from tests.support.leftovers import wait_until_gone

SECRET = b"a secret of the host's\n"


class Project:
    """A folder of the user's (here), its snapshot (work), and a folder that is not shared."""

    def __init__(self, root: Path) -> None:
        self.here, self.outside = root / "here", root / "outside"
        for folder in (self.here / "d", self.outside):
            folder.mkdir(parents=True)
        (self.outside / "secret").write_bytes(SECRET)
        (self.here / "a").write_text("a\n")
        (self.here / "d" / "b").write_text("b\n")
        self.review = Review("demo")
        with self.review.begin(str(self.here), None) as begun:
            self.work = Path(begun.works[1])

    def apply(self) -> Outcome:
        return self.review.apply([], lambda _one: True)

    def patch(self) -> bytes:
        with self.review.comparison() as (comparison, _here):
            entries = showing.patches(comparison, comparison.changes(), binary=True)
            return b"".join(line for _pair, lines in entries for line in lines)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    yield Project(tmp_path)


def test_links_in_a_snapshot_lend_nothing_of_the_host(project: Project) -> None:
    """Neither the diff nor applying reads or writes what a link leads to."""
    (project.work / "a").unlink()
    (project.work / "a").symlink_to(project.outside / "secret")
    (project.work / "d" / "b").unlink()
    (project.work / "d").rmdir()
    (project.work / "d").symlink_to(project.outside)
    (project.work / "e").symlink_to("/etc/passwd")
    assert SECRET.strip() not in project.patch()
    project.apply()
    assert (project.here / "d").is_symlink() and (project.here / "e").is_symlink()
    assert list(project.outside.iterdir()) == [project.outside / "secret"]
    assert (project.outside / "secret").read_bytes() == SECRET


def test_links_swapped_while_changes_are_read_or_applied_lend_nothing(project: Project) -> None:
    work, outside = project.work, project.outside
    (outside / "x").write_bytes(SECRET)
    (work / "f").mkdir()
    for number in range(30):
        (work / "f" / f"{number}").write_text("plain")
    (work / "f" / "x").write_text("plain")
    (work / "to").symlink_to(outside)
    (work / "g").write_text("plain")
    (work / "too").symlink_to(outside / "secret")
    stop, swaps = threading.Event(), []

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("f", "to"), ("g", "too")):
                os.rename(work / one, work / "away")  # noqa: PTH104
                os.rename(work / other, work / one)  # noqa: PTH104
                os.rename(work / "away", work / other)  # noqa: PTH104
            swaps.append(1)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(25):
            assert SECRET.strip() not in project.patch()
            project.apply()
    finally:
        stop.set()
        swapper.join()
    assert len(swaps) > 25
    for file in project.here.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert SECRET not in file.read_bytes(), file
    assert sorted(file.name for file in outside.iterdir()) == ["secret", "x"]


def test_links_swapped_in_the_users_folder_lead_no_write_out_of_it(project: Project) -> None:
    """Another sandbox, or a share, may write in the same folder at the same time."""
    here, outside = project.here, project.outside
    (project.work / "d" / "b").write_text("changed\n")
    (project.work / "d" / "new").write_text("new\n")
    (here / "to").symlink_to(outside)
    stop, swaps = threading.Event(), []

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("d", "away"), ("to", "d"), ("d", "to"), ("away", "d")):
                # Applying makes the folder anew where it is missing for a moment.
                with contextlib.suppress(OSError):
                    os.rename(here / one, here / other)  # noqa: PTH104
            swaps.append(1)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(25):
            (project.work / "d" / "new").write_text(f"new {number}\n")
            try:
                project.apply()
            except ReviewError:
                continue
    finally:
        stop.set()
        swapper.join()
    assert len(swaps) > 25
    assert [file.name for file in outside.iterdir()] == ["secret"]


def test_no_device_no_pipe_no_socket_and_no_set_id_bit_is_applied(project: Project) -> None:
    work = project.work
    os.mkfifo(work / "pipe")
    (work / "a").unlink()
    os.mkfifo(work / "a")
    (work / "tool").write_text("#!/bin/sh\n")
    (work / "tool").chmod(0o6755)
    names = ["a", "pipe"]
    if os.getuid() == 0:
        os.mknod(work / "null", 0o20666, os.makedev(1, 3))
        names.insert(1, "null")
    project.patch()
    outcome = project.review.apply([], lambda _one: True)
    assert [one.change.path for one in outcome.conflicts] == names
    assert sorted(file.name for file in project.here.iterdir()) == ["a", "d", "tool"]
    assert (project.here / "a").read_text() == "a\n"
    assert (project.here / "tool").stat().st_mode & 0o7000 == 0


def test_large_sparse_deep_and_many_files_harm_nobody(project: Project) -> None:
    work = project.work
    with (work / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"x")
    os.link(work / "a", work / "hard")
    folder = os.open(work, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 40):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (work / "long").write_bytes(b"x" * 3_000_000)
    (work / "lines").write_bytes(b"\n" * 2_000_000)
    patch = project.patch()
    assert b"b/sparse differ" in patch and len(patch) < 40_000_000
    outcome = project.review.apply([], lambda _one: True)
    (too_deep,) = outcome.conflicts
    assert too_deep.change.path.count("/") == MAX_DEPTH
    found = (project.here / "sparse").stat()
    assert found.st_size == 1 << 40 and found.st_blocks < 1000, "holes stay holes"
    assert (project.here / "hard").stat().st_nlink == 1
    # Touched, it has to be compared, which does not read 2 TiB of nothing.
    os.utime(work / "sparse")
    began = time.monotonic()
    assert not [one for one in project.review.changes() if one.change.path == "sparse"]
    os.utime(project.here / "sparse")
    with (work / "sparse").open("r+b") as file:
        file.seek((1 << 39) + 5)
        file.write(b"y")
    (other,) = (one for one in project.review.changes() if one.change.path == "sparse")
    assert other.standing.state == "clean" and time.monotonic() - began < 20
    project.review.discard([])


def test_names_without_end_take_no_memory(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path has up to MAX_DEPTH names of 255 bytes: many of these would take many GiB."""
    monkeypatch.setattr(looking, "MAX_LENGTH", 100_000)
    folder = os.open(project.work, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("n" * 255, dir_fd=folder)
        inner = os.open("n" * 255, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(ReviewError, match="too long to compare"):
        project.review.changes()
    project.review.discard([])
    assert not project.review.exists()


def test_names_and_contents_do_not_drive_the_terminal(project: Project) -> None:
    evil = "x\x1b]0;owned\x07\nb/\u202ey"
    (project.work / evil.replace("/", "")).write_bytes(
        b"\x1b[2J\x9b\xc2\x9b31m\r\x08\xe2\x80\xae\n"
    )
    with project.review.comparison() as (comparison, _here):
        entries = showing.patches(comparison, comparison.changes(), binary=False)
        shown = "".join(line for _pair, lines in entries for line in _for_a_person([], lines))
    body = shown
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[36m"):
        body = body.replace(style, "")
    assert "^[[2J" in body
    assert all(c.isprintable() or c in "\n\t" for c in body)
    done = subprocess.run(
        command("diff", "demo", "--stat"),
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b]" not in done.stdout + done.stderr and b"\xe2\x80\xae" not in done.stdout


def test_what_is_applied_is_what_was_judged(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent changes a file between the judging and the applying."""
    (project.work / "package.json").write_text('{"version": "1"}')

    def accept(one: showing.Shown) -> bool:
        return False

    real = judging.dangers

    def late(*arguments: Any) -> Any:
        found = real(*arguments)
        (project.work / "package.json").write_text('{"scripts": {"postinstall": "evil"}}')
        return found

    monkeypatch.setattr(applying, "dangers", late)
    project.review.apply([], accept)
    monkeypatch.setattr(applying, "dangers", real)
    assert (project.here / "package.json").read_text() == '{"version": "1"}'
    (left,) = project.review.apply([], accept).refused
    assert left.dangers[0].rule == "scripts"


def test_what_is_committed_is_what_was_judged(project: Project) -> None:
    """A sandbox goes on while a person is asked, and changes what was, or will be, judged."""
    _git(project.here, "init", "-q")
    _git(project.here, "add", ".")
    _git(project.here, "commit", "-qm", "one")
    project.review.discard([])
    with project.review.begin(str(project.here), None):
        pass
    for name in ("a1", "z1"):
        (project.work / name).mkdir()
        (project.work / name / "package.json").write_text('{"version": "1"}')
    (project.work / "m.code-workspace").write_text("asked for between these two")
    asked = []

    def accept(one: showing.Shown) -> bool:
        asked.append(one.change.path)
        for name in ("a1", "z1"):
            text = '{"scripts": {"postinstall": "evil"}}'
            (project.work / name / "package.json").write_text(text)
        return False

    commit, outcome = project.review.branch([], accept, "fix", "Fix it")
    assert asked == ["m.code-workspace", "z1/package.json"]
    assert [one.change.path for one in outcome.applied] == ["a1/package.json"]
    assert _git(project.here, "show", f"{commit}:a1/package.json") == b'{"version": "1"}'


def _git(root: Path, *arguments: str) -> bytes:
    me = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    clean = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
    argv = ["git", *me, *arguments]
    return subprocess.run(argv, cwd=root, env=clean, check=True, capture_output=True).stdout


ATTACK = r"""
try() { "$@" 2>/dev/null && echo "DONE: $*"; }
echo changed > a
echo new > new
mkdir -p .vscode sub/.git/hooks && echo '{}' > .vscode/tasks.json
printf '[core]\n\tfsmonitor = touch owned\n' > sub/.git/config
# what the snapshot was made of, and the folder itself, are nowhere to be reached
try ls ../base ../base.pack ../../review.json ../../../.demo.running
echo owned > "$(dirname "$PWD")/planted"  # in the sandbox's own memory, where it may
try mount -o bind / /mnt
cat a
"""


def test_a_sandbox_under_review_changes_nothing_here(project: Project) -> None:
    here = project.here
    project.review.discard([])
    (here / ".git" / "hooks").mkdir(parents=True)
    (here / ".git" / "config").write_text("[core]\n")
    before = {file: file.lstat() for file in (here, *here.rglob("*"))}
    done = subprocess.run(
        command("run", "--review", "--name", "demo", "-u", "root", "--", "sh", "-c", ATTACK),
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "changed\n", "every attack must fail"
    assert {file: file.lstat() for file in (here, *here.rglob("*"))} == {
        file: _untouched(status, file) for file, status in before.items()
    }
    assert not (here.parent / "planted").exists()
    told = [line for line in done.stderr.splitlines() if "dangerous: " in line]
    assert any(".vscode/tasks.json" in line for line in told)
    changed = {one.change.path for one in project.review.changes()}
    assert changed == {"a", "new", ".vscode/tasks.json"}
    in_git = {change.path for change in project.review.repository_changes()}
    assert "sub/.git/config" in in_git


def _untouched(status: os.stat_result, file: Path) -> os.stat_result:
    """Times of access apart, a file is as it was."""
    now = file.lstat()
    assert (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (
        now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
    ), file  # fmt: skip
    return now


def test_killed_while_the_snapshot_is_made_nothing_is_left(project: Project) -> None:
    project.review.discard([])
    done = subprocess.run(
        command("run", "--review", "--name", "demo", "--", "true"),
        cwd=project.here,
        env=environment({VARIABLE: "snapshot-made"}),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    assert wait_until_gone(15) == []
    assert not project.review.exists()
    with project.review.begin(str(project.here), None):
        pass
    root = project.review.folder.parent
    assert sorted(entry.name for entry in root.iterdir() if "new" in entry.name) == []
