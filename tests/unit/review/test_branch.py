"""Changes as a commit on a branch: the repository's configuration and hooks have no say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from corral.errors import ReviewError
from corral.review.applying import Outcome
from tests.unit.review.conftest import Case, paths
from tests.unit.review.trees import Tree, build, read

CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
OLD: Tree = {"a": b"a\n", "d/b": b"b\n", "gone": b"gone\n", "l": "a", "é\n": b"x"}
NEW: Tree = {"a": b"a2\n", "d": b"file\n", "new/c": b"\0c", "l": "d", "é\n": b"y"}


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
        cwd=root,
        env=CLEAN,
        check=True,
        capture_output=True,
    )
    return done.stdout.decode()


def repository(root: Path, tree: Tree, *options: str) -> None:
    build(root, tree)
    git(root, "init", "-q", "-b", "main", *options)
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")


def as_branch(case: Case, *chosen: str, branch: str = "agent/fix") -> tuple[str, Outcome]:
    return case.review.branch(chosen, lambda _one: True, branch, "Fix it\n\nby an agent")


def begun(case: Case) -> None:
    with case.review.begin(str(case.here), None):
        pass


@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)], ids=["sha1", "sha256"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_commit_has_the_changes_and_nothing_else_changes(
    case: Case, tmp_path: Path, packed: bool, options: tuple[str, ...]
) -> None:
    repository(case.here, OLD, *options)
    if packed:
        git(case.here, "gc", "-q")
    begun(case)
    case.agent_makes(NEW)
    status, head = git(case.here, "status", "--porcelain"), git(case.here, "rev-parse", "HEAD")
    commit, outcome = as_branch(case)
    assert outcome.whole, outcome.conflicts
    assert git(case.here, "rev-parse", "agent/fix").strip() == commit
    assert git(case.here, "rev-parse", "agent/fix^", "HEAD").split() == [head.strip()] * 2
    assert git(case.here, "log", "-1", "--format=%B", commit).strip() == "Fix it\n\nby an agent"
    assert git(case.here, "status", "--porcelain") == status == ""
    assert read(case.here) == OLD
    git(case.here, "fsck", "--strict")
    git(case.here, "worktree", "add", "-q", str(tmp_path / "tree"), "agent/fix")
    assert {k: v for k, v in read(tmp_path / "tree").items() if k != ".git"} == NEW
    with pytest.raises(ReviewError, match="already"):
        as_branch(case)
    with pytest.raises(ReviewError, match="already"):
        as_branch(case, branch="agent")


def test_what_was_not_committed_is_in_conflict(case: Case) -> None:
    repository(case.here, OLD)
    (case.here / "a").write_bytes(b"mine\n")
    (case.here / "mine").write_bytes(b"mine\n")
    begun(case)
    case.agent_makes({**OLD, "a": b"agent\n", "mine": b"agent\n", "new": b"", "gone": (b"gone\n",)})
    _commit, outcome = as_branch(case)
    assert paths(outcome.conflicts) == ["a", "mine"]
    assert git(case.here, "diff", "--name-only", "main", "agent/fix").split() == ["gone", "new"]


def names(case: Case, commit: str) -> list[str]:
    return git(case.here, "ls-tree", "-r", "--name-only", commit).split()


def test_what_the_last_commit_has_above_or_below_a_new_file_stays(case: Case) -> None:
    """Git's own importer would let a file take the place of whatever is there."""
    repository(case.here, {"d/x": b"x", "d/y": b"y", "e": b"e", "gone/x": b"x", "old": b"o"})
    number = git(case.here, "rev-parse", "HEAD").strip()
    git(case.here, "update-index", "--add", "--cacheinfo", f"160000,{number},lib")
    git(case.here, "commit", "-qm", "two")
    # Of these, nothing is committed: d is gone, e is a folder.
    for path in ("d/x", "d/y", "e"):
        (case.here / path).unlink()
    (case.here / "d").rmdir()
    (case.here / "e").mkdir()
    begun(case)
    added: Tree = {"d": b"file", "e/new": b"", "lib/new.c": b"c"}
    case.agent_makes({**added, "gone": b"a file now", "old/new": b"a folder now"})
    commit, outcome = as_branch(case)
    assert paths(outcome.conflicts) == ["d", "e/new", "lib/new.c"]
    assert paths(outcome.applied) == ["gone", "gone/x", "old", "old/new"]
    assert names(case, commit) == ["d/x", "d/y", "e", "gone", "lib", "old/new"]
    git(case.here, "fsck", "--strict")


def test_a_removal_without_a_yes_keeps_out_what_would_take_its_place(case: Case) -> None:
    old: Tree = {"d/.envrc": b"x", "d/y": b"y", "setup.py": b"s"}
    repository(case.here, old)
    begun(case)
    case.agent_makes({"d": b"file", "setup.py/new": b""})
    commit, outcome = case.review.branch([], lambda _one: False, "fix", "Fix it")
    assert paths(outcome.refused) == ["d/.envrc", "setup.py"]
    assert paths(outcome.conflicts) == ["d", "setup.py/new"]
    assert names(case, commit) == ["d/.envrc", "setup.py"]


def test_what_is_judged_again_and_again_takes_no_more_room(case: Case) -> None:
    repository(case.here, OLD)
    begun(case)
    case.agent_makes({**OLD, "new": b"x" * 100_000})
    pack = case.review.folder / "1" / "base.pack"
    size = pack.stat().st_size
    assert as_branch(case)[1].whole
    assert pack.stat().st_size == size


def test_no_word_of_the_repositorys_configuration_is_obeyed(case: Case, tmp_path: Path) -> None:
    """Each of these runs a program when git is run in that repository."""
    repository(case.here, {**OLD, ".gitattributes": b"* filter=x\n"})
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "core.editor", "core.pager", "filter.x.clean", "gpg.program"):
        git(case.here, "config", key, str(trap))
    git(case.here, "config", "commit.gpgSign", "true")
    git(case.here, "config", "core.hooksPath", str(tmp_path))
    for hook in ("reference-transaction", "post-commit", "pre-commit", "post-index-change"):
        (case.here / ".git" / "hooks" / hook).symlink_to(trap)
        (tmp_path / hook).symlink_to(trap)
    begun(case)
    case.agent_makes({**NEW, ".gitattributes": b"* filter=x\n"})
    assert as_branch(case)[1].whole
    assert not (tmp_path / "sprung").exists()
    subprocess.run(["git", "status"], cwd=case.here, env=CLEAN, capture_output=True)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_links_in_the_repository_lead_nowhere(case: Case, tmp_path: Path) -> None:
    repository(case.here, OLD)
    begun(case)
    case.agent_makes(NEW)
    outside = tmp_path / "outside"
    outside.mkdir()
    heads = case.here / ".git" / "refs" / "heads"
    heads.rename(outside / "heads")
    heads.symlink_to(outside / "heads")
    with pytest.raises((ReviewError, OSError)):
        as_branch(case)
    assert sorted(file.name for file in (outside / "heads").iterdir()) == ["main"]


@pytest.mark.parametrize(
    "name", ["", "-x", "a..b", "a.lock", "a/.b", "/a", "a/", "a b", "a\n", "@{x}", "x.lock/y"]
)
def test_names_that_are_none_for_a_branch_are_refused(case: Case, name: str) -> None:
    repository(case.here, OLD)
    begun(case)
    case.agent_makes(NEW)
    with pytest.raises(ReviewError, match="not a name for a branch"):
        as_branch(case, branch=name)


def test_without_a_repository_or_a_commit_it_is_refused(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    with pytest.raises(ReviewError, match="no git repository"):
        as_branch(case)
    git(case.here, "init", "-q")
    with pytest.raises(ReviewError, match="no commit yet"):
        as_branch(case)
