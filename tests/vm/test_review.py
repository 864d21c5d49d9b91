"""`corral run --review` and what follows, with real machines: held back, shown, applied, undone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from corral import Sandbox
from corral.errors import ReviewError
from corral.review.store import Review
from tests.conftest import Corral

COMMIT = "git -c user.name=a -c user.email=a@example.org commit -qm inside"
WORK = f"echo more >> a; mkdir -p new; echo b > new/b; rm gone; git add -A; {COMMIT}"
CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
        cwd=root,
        env=CLEAN,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def repository(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    (project / "a").write_text("one\n")
    (project / "gone").write_text("gone\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "one")
    return project


def test_a_run_under_review_is_held_back_shown_applied_and_taken_back(
    repository: Path, corral: Corral
) -> None:
    done = corral("run", "--review", "--", "sh", "-c", f"pwd; {WORK}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{repository}\n", "it is at the folder's own path"
    assert git(repository, "status", "--porcelain") == ""
    assert "held back: 1 new, 1 changed, 1 removed." in done.stderr
    assert "corral apply project" in done.stderr
    assert corral("diff").stdout == "project\n"
    patch = corral("diff", "project")
    assert patch.stderr == ""
    (repository.parent / "clone").mkdir()
    git(repository.parent, "clone", "-q", str(repository), "clone")
    subprocess.run(
        ["git", "apply", "-"], input=patch.stdout, text=True, check=True,
        cwd=repository.parent / "clone", env=CLEAN,
    )  # fmt: skip
    assert (
        "3 files changed, 2 insertions(+), 1 deletions(-)"
        in corral("diff", "project", "--stat").stdout
    )
    found = json.loads(corral("diff", "project", "a", "--json").stdout)
    assert [(one["path"], one["added"], one["state"]) for one in found] == [("a", 1, "clean")]

    # A second run goes on from there.
    done = corral("run", "--review", "--", "sh", "-c", "cat a new/b; git log --oneline | wc -l")
    assert done.stdout == "one\nmore\nb\n2\n" and "going on from 3 changes" in done.stderr

    (repository / "gone").write_text("mine\n")
    done = corral("apply", "project")
    assert done.returncode == 1 and "2 changes applied" in done.stdout
    assert "conflict: gone: it was changed here, too" in done.stderr
    assert git(repository, "status", "--porcelain").split() == ["M", "a", "M", "gone", "??", "new/"]
    assert corral("apply", "project", "--undo").returncode == 0
    assert git(repository, "status", "--porcelain").split() == ["M", "gone"]
    done = corral("apply", "project", "--as", "agent")
    assert done.returncode == 0, done.stderr
    assert git(repository, "diff", "--name-status", "HEAD", "agent").split() == [
        "M", "a", "D", "gone", "A", "new/b"
    ]  # fmt: skip
    assert corral("discard", "project").returncode == 2, "only after a yes"
    assert corral("discard", "project", "--yes").stdout == "project\n"
    assert corral("diff", "project").returncode == 125


def test_dangerous_changes_need_a_yes(repository: Path, corral: Corral) -> None:
    plant = "mkdir .vscode; echo '{}' > .vscode/tasks.json; echo x > .git/commondir; echo y > y"
    done = corral("run", "--review", "--", "sh", "-c", plant)
    assert "dangerous: .vscode/tasks.json: editors" in done.stderr
    done = corral("apply", "project")
    assert (done.returncode, sorted(entry.name for entry in repository.iterdir())) == (
        1, [".git", "a", "gone", "y"]
    )  # fmt: skip
    assert "dangerous, and left: .vscode/tasks.json" in done.stderr
    assert corral("apply", "project", ".vscode", "--yes-dangerous").returncode == 0
    assert (repository / ".vscode" / "tasks.json").read_text() == "{}\n"
    assert not (repository / ".git" / "commondir").exists()


def test_a_sandbox_that_stays_is_reviewed_and_starts_again(
    repository: Path, corral: Corral
) -> None:
    try:
        assert corral("up", "web", "-d", "--review").returncode == 0
        assert corral("exec", "web", "--", "sh", "-c", WORK).returncode == 0
        assert "new/b" in corral("diff", "web", "--stat").stdout
        done = corral("apply", "web")
        assert done.returncode == 125 and "corral pause web" in done.stderr
        assert corral("pause", "web").returncode == 0
        assert corral("apply", "web", "a").returncode == 0
        assert corral("resume", "web").returncode == 0
        assert (repository / "a").read_text() == "one\nmore\n"
        assert corral("discard", "web", "--yes").returncode == 125
        done = corral("stop", "web")
        assert "held back: 1 new, 1 removed" in done.stderr
        assert corral("start", "web").returncode == 0
        assert corral("exec", "web", "--", "cat", "new/b").stdout == "b\n"
        assert corral("rm", "-f", "web").returncode == 0
        assert len(Review("web").changes()) == 2, "changes stay until they are applied or discarded"
    finally:
        corral("rm", "-f", "web")


def test_from_python(repository: Path) -> None:
    settings = {"machine.cpus": 1, "machine.memory": "768MiB"}
    with Sandbox(workspace=repository, review=True, settings=settings) as box:
        assert box.review.changes() == []
        box.exec(["sh", "-c", WORK + "; echo '{}' > .mcp.json"], check=True)
        found = {change.path: change.status for change in box.review.changes()}
        assert found == {"a": "M", "gone": "D", "new/b": "A", ".mcp.json": "A"}
        assert b"+more\n" in box.review.diff(["a"])
        assert git(repository, "status", "--porcelain") == ""
        (left,) = box.review.apply()
        assert left.path == ".mcp.json" and left.dangers and left.state == "clean"
        assert (repository / "a").read_text() == "one\nmore\n"
        assert box.review.undo() == []
    assert git(repository, "status", "--porcelain") == ""
    assert len(Review("project").changes()) == 4
    with Sandbox(workspace=repository, settings=settings) as box:
        Review("project").discard([])
        with pytest.raises(ReviewError):
            box.review.changes()


def test_a_worktree_is_refused(repository: Path, corral: Corral) -> None:
    git(repository, "worktree", "add", "-q", str(repository.parent / "tree"))
    done = corral("run", "--review", "--", "true", cwd=repository.parent / "tree")
    assert done.returncode == 125 and "linked git worktree" in done.stderr
