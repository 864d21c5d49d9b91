"""Changes under review that tools of the host would run or obey: each needs a yes of its own.

The trees here are an agent's. What git on the host does with them is shown by git itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.host.repository import changed, snapshot
from corral.review.store import Review
from tests.unit.review.trees import Tree, build

HEAD = b"ref: refs/heads/main\n"
RUNS = b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n"
RUNS += b"\tfsmonitor = touch ../owned; false\n"
LENT = b"[core]\n\trepositoryformatversion = 1\n\tfsmonitor = touch ../owned; false\n"
LENT += b"[extensions]\n\tworktreeConfig = true\n"
# Each of these git takes for a repository where it is in the folder t.
SHAPES: dict[str, Tree] = {
    "bare": {"t/HEAD": HEAD, "t/config": RUNS, "t/objects/x": b"", "t/refs/x": b""},
    "links to folders": {
        "t/HEAD": "refs/heads/main",
        "t/config": RUNS,
        "t/objects": "../d",
        "t/refs": "../d",
        "d/x": b"",
    },
    "programs for folders": {
        "t/HEAD": HEAD,
        "t/config": RUNS,
        "t/objects": (b"",),
        "t/refs": (b"",),
    },
    "its settings elsewhere": {
        "t/HEAD": HEAD,
        "t/commondir": b"../data\n",
        "t/config.worktree": b"[core]\n\tbare = false\n\tworktree = .\n",
        "data/config": LENT,
        "data/objects/x": b"",
        "data/refs/x": b"",
    },
}
GIT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}


class Project:
    """A folder of the user's (here) and what an agent works on (work)."""

    def __init__(self, root: Path, tree: Tree) -> None:
        self.here = build(root / "here", tree)
        self.review = Review("demo")
        with self.review.begin(str(self.here), None) as begun:
            self.work = Path(begun.works[1])

    def dangers(self) -> dict[str, set[str]]:
        """Apply all without a yes; the rules that each change met, by path."""
        judged = {
            one.change.path: {danger.rule for danger in one.dangers}
            for one in self.review.changes()
        }
        outcome = self.review.apply([], lambda _one: False)
        left = {one.change.path: {d.rule for d in one.dangers} for one in outcome.refused}
        assert left == {path: rules for path, rules in judged.items() if rules}
        assert not outcome.conflicts
        return judged


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    yield


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_git_takes_for_a_repository_is_judged_so_and_told(
    tmp_path: Path, shape: str
) -> None:
    project = Project(tmp_path, {"a": b"a\n"})
    before = snapshot(str(project.here))
    build(project.work, SHAPES[shape])
    project.dangers()
    status = ["git", "status"]
    subprocess.run(status, cwd=_made(project.here / "t"), env=GIT, capture_output=True, timeout=60)
    assert not (project.here / "owned").exists(), "what was applied without a yes was run"
    config = "data/config" if "data/config" in SHAPES[shape] else "t/config"
    # With a yes, or without a review, it is there, and git runs it.
    project.review.apply([], lambda _one: True)
    subprocess.run(status, cwd=project.here / "t", env=GIT, capture_output=True, timeout=60)
    assert (project.here / "owned").exists()
    assert f"{project.here}/{config}" in changed(before, snapshot(str(project.here)))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_every_file_of_such_a_folder_needs_a_yes(tmp_path: Path) -> None:
    project = Project(tmp_path, {"a": b"a\n"})
    shape = SHAPES["its settings elsewhere"]
    build(project.work, shape)
    found = project.dangers()
    assert all("repository" in found[path] for path in shape), found


@pytest.mark.parametrize(
    "how", ["hooksPath", "global", "included", "link", "folder", "above", "worktree", "submodule"]
)
def test_what_the_users_git_runs_from_elsewhere_needs_a_yes(tmp_path: Path, how: str) -> None:
    """The agent changes a file that can be executed already, and nothing else."""
    here = build(tmp_path / "here", {"scripts/pre-commit": (b"#!/bin/sh\n",), "plain": b"x"})
    top = tmp_path if how == "above" else here / "sub" if how == "submodule" else here
    git = top / ".git"
    if how == "submodule":
        git = here / ".git" / "modules" / "sub"
        build(here, {"sub/.git": b"gitdir: ../.git/modules/sub\n", ".git/HEAD": HEAD})
    build(git, {"HEAD": HEAD, "hooks/post-commit.sample": b"", "objects/x": b"", "refs/x": b""})
    match how:
        case "link":
            (git / "hooks" / "post-commit").symlink_to("../../scripts/pre-commit")
        case "folder":
            (git / "hooks" / "post-commit.sample").unlink()
            (git / "hooks").rmdir()
            (git / "hooks").symlink_to("../scripts")
        case "global":
            (tmp_path / ".gitconfig").write_text("[core]\n\thooksPath = scripts\n")
        case "included":
            (git / "config").write_text("[include]\n\tpath = more\n")
            (git / "more").write_text("[core]\n\thooksPath = scripts\n")
        case "above":
            (git / "config").write_text("[core]\n\thooksPath = here/scripts\n")
        case "worktree":
            (git / "config.worktree").write_text("[core]\n\thooksPath = scripts\n")
        case "submodule":
            (git / "config").write_text(f"[core]\n\thooksPath = {here}/scripts\n")
        case _:
            (git / "config").write_text("[core]\n\thooksPath = ~/here/scripts # ours\n")
    project = Project(tmp_path, {})
    (project.work / "scripts" / "pre-commit").write_text("#!/bin/sh\ntouch owned\n")
    (project.work / "plain").write_text("y")
    assert project.dangers() == {"scripts/pre-commit": {"git"}, "plain": set()}


def test_what_the_users_git_or_a_link_of_theirs_obeys_needs_a_yes(tmp_path: Path) -> None:
    tree: Tree = {
        ".git/HEAD": HEAD,
        ".git/config": b"[include]\n\tpath = ../settings/shared\n",
        "settings/shared": b"",
        "cfg/agent.json": b"{}",
        ".claude/settings.json": "../cfg/agent.json",
    }
    project = Project(tmp_path, tree)
    (project.work / "settings" / "shared").write_text("[core]\n\tfsmonitor = evil\n")
    (project.work / "cfg" / "agent.json").write_text('{"hooks": {}}')
    (project.work / "lnk").symlink_to(".git/config")
    # What the agent's own repository says counts for nothing.
    (project.work / ".git" / "config").write_text("[core]\n\thooksPath = .\n")
    (project.work / "plain").write_text("x")
    assert project.dangers() == {
        "settings/shared": {"git"},
        "cfg/agent.json": {"agents"},
        "lnk": {"link"},
        "plain": set(),
    }
