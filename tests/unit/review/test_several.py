"""Reviews of several agents: a copy and a branch each, looked at together, taken one by one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from corral.errors import ReviewError
from corral.review import refs
from corral.review.everybody import look
from corral.review.store import Review
from corral.review.tree import opened
from corral.review.working import summary
from corral.spec import AgentSpec
from tests.support import examples
from tests.unit.review.conftest import Case
from tests.unit.review.trees import build, read, replace

CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
OLD = {"a": b"one\n", "b": b"two\n"}


def git(root: Path, *arguments: str) -> str:
    words = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(
        words, cwd=root, env=CLEAN, check=True, capture_output=True, text=True
    ).stdout.strip()


def begin(case: Case, **branches: str) -> dict[int, Path]:
    """Snapshots for agents 1 and up, on branches by one=, two= and three=."""
    agents = {n: branches.get(word, "") for n, word in enumerate(("one", "two", "three"), 1)}
    with case.review.begin(str(case.here), None, agents) as begun:
        return {number: Path(work) for number, work in begun.works.items()}


@pytest.fixture
def repository(case: Case) -> Path:
    build(case.here, OLD)
    git(case.here, "init", "-q", "-b", "main")
    git(case.here, "add", ".")
    git(case.here, "commit", "-qm", "one")
    return case.here


def test_each_copy_is_on_its_branch_and_that_is_no_change(case: Case, repository: Path) -> None:
    works = begin(case, one="corral/x/1", two="parser")
    for number in works:
        assert case.review.changes([""], number) == [] == case.review.repository_changes(number)
    head = git(repository, "rev-parse", "HEAD")
    assert git(works[1], "status", "-sb") == "## corral/x/1"
    assert git(works[2], "symbolic-ref", "HEAD") == "refs/heads/parser"
    assert git(works[3], "status", "-sb") == "## main", "no branch was asked for"
    for work in works.values():
        assert git(work, "rev-parse", "HEAD") == head
        git(work, "fsck", "--strict")
    assert git(repository, "branch", "--format=%(refname)") == "refs/heads/main"


@pytest.mark.parametrize("kind", ["packed", "detached", "unborn", "sha256"])
def test_however_the_repository_keeps_its_head(case: Case, kind: str) -> None:
    build(case.here, OLD)
    git(case.here, "init", "-q", f"--object-format={'sha256' if kind == 'sha256' else 'sha1'}")
    if kind != "unborn":
        git(case.here, "add", ".")
        git(case.here, "commit", "-qm", "one")
    if kind == "packed":
        git(case.here, "pack-refs", "--all")
    if kind == "detached":
        git(case.here, "checkout", "-q", "--detach")
    work = begin(case, one="mine")[1]
    assert git(work, "symbolic-ref", "HEAD") == "refs/heads/mine"
    if kind == "unborn":
        git(work, "add", ".")
        git(work, "commit", "-qm", "first")
    else:
        assert git(work, "status", "--porcelain") == ""
    assert git(work, "log", "--format=%D") == "HEAD -> mine" + {
        "packed": ", master", "sha256": ", master", "detached": ", master", "unborn": "",
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["corral/x/1"], "corral/x/1-2"),
        (["corral"], "corral-x-1"),
        (["corral/x/1/y"], "corral/x/1-2"),
        (["corral/x/1", "corral/x/1-2"], "corral/x/1-3"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_name_that_is_taken_is_left_alone(
    case: Case, repository: Path, there: list[str], found: str, packed: bool
) -> None:
    for name in there:
        git(repository, "branch", name)
    if packed:
        git(repository, "pack-refs", "--all")
    work = begin(case, one="corral/x/1")[1]
    assert git(work, "symbolic-ref", "--short", "HEAD") == found
    git(work, "fsck", "--strict")


@pytest.mark.parametrize("what", ["nothing", "link", "file", "link to HEAD"])
def test_what_is_no_repository_of_its_own_stays_as_it_is(case: Case, what: str) -> None:
    """A link or file leads to a repository elsewhere, which must not be written."""
    build(case.here, OLD)
    other = case.here.parent / "other"
    other.mkdir()
    git(other, "init", "-q")
    if what == "link":
        (case.here / ".git").symlink_to(other / ".git")
    elif what == "link to HEAD":
        (case.here / ".git").mkdir()
        (case.here / ".git" / "HEAD").symlink_to(other / ".git" / "HEAD")
    elif what == "file":
        (case.here / ".git").write_text(f"gitdir: {other}/.git\n")
    before = read(other)
    work = begin(case, one="mine")[1]
    assert read(other) == before
    assert case.review.changes([""]) == []
    with opened(work) as fd:
        assert refs.head(fd) == ("", "")


def test_who_changed_what_and_where_two_disagree(case: Case) -> None:
    build(case.here, OLD)
    works = begin(case)
    replace(works[1], {"a": b"1\n", "b": b"same\n", "new": b"1"})
    replace(works[2], {"a": b"2\n", "b": b"same\n"})
    replace(works[3], {"a": b"one\n", "b": b"two\n", "new/x": b"3"})
    found = look(case.review)
    assert {one.path: (one.agents, one.state) for one in found.touched} == {
        "a": ((1, 2), "disagree"),
        "b": ((1, 2), "agree"),
        "new": ((1,), "disagree"),
        "new/x": ((3,), "disagree"),
    }
    assert [one.path for one in found.disagreements(1, [])] == ["a", "new"]
    assert [one.path for one in found.disagreements(3, ["new"])] == ["new/x"]
    assert found.disagreements(2, ["b"]) == []
    assert [one.path for one in look(case.review, ["a"]).touched] == ["a"]


def test_one_is_applied_and_what_another_left_there_is_then_in_conflict(case: Case) -> None:
    build(case.here, OLD)
    works = begin(case)
    replace(works[1], {**OLD, "a": b"1\n"})
    replace(works[2], {**OLD, "a": b"2\n", "b": b"too\n"})
    assert case.review.apply([], lambda _one: False, 1).whole
    outcome = case.review.apply([], lambda _one: False, 2)
    assert [one.change.path for one in outcome.conflicts] == ["a"]
    assert (case.here / "a").read_bytes() == b"1\n"
    assert (case.here / "b").read_bytes() == b"too\n"


def test_a_next_start_goes_on_from_what_is_pending_and_copies_the_rest_anew(case: Case) -> None:
    build(case.here, OLD)
    works = begin(case)
    replace(works[2], {**OLD, "a": b"2\n"})
    (case.here / "b").write_bytes(b"mine\n")
    with case.review.begin(str(case.here), None, {1: "", 2: "", 4: ""}) as begun:
        assert "of agent 2" in begun.notices[0]
    assert (works[1] / "b").read_bytes() == b"mine\n", "nothing was pending: a new copy"
    assert (works[2] / "b").read_bytes() == b"two\n"
    assert case.review.meta().agents == (1, 2, 4)
    assert not works[3].exists(), "nobody asked for it, and it held no change"
    assert [one.change.path for one in case.review.changes(agent=2)] == ["a"]
    left = [entry.name for entry in case.review.folder.parent.iterdir()]
    assert not [name for name in left if name.startswith((".gone", ".demo.new"))]


def test_what_one_made_is_thrown_away_alone(case: Case) -> None:
    build(case.here, OLD)
    works = begin(case)
    for work in works.values():
        replace(work, {**OLD, "a": b"x\n"})
    case.review.discard([], 2)
    assert case.review.meta().agents == (1, 3) and not works[2].exists()
    with pytest.raises(ReviewError, match="no agent 2"):
        case.review.changes(agent=2)
    assert len(case.review.changes(agent=3)) == 1
    with case.review.begin(str(case.here), None, {1: "", 2: "", 3: ""}) as begun:
        assert begun.pending == 2
    assert case.review.changes(agent=2) == []
    case.review.discard([])
    assert not Review("demo").exists()


@pytest.mark.parametrize("several", [True, False])
def test_a_branch_that_is_taken_is_told_with_the_one_in_its_place(
    case: Case, repository: Path, several: bool
) -> None:
    git(repository, "branch", "corral/x/2")
    agents = {1: "corral/x/1", 2: "corral/x/2"} if several else {1: "corral/x/2"}
    with case.review.begin(str(case.here), None, agents) as begun:
        (notice,) = begun.notices
    whose = "agent 2's copy" if several else "the copy"
    assert notice == f"the branch corral/x/2 is taken: {whose} is on corral/x/2-2."
    with case.review.begin(str(case.here), None, dict.fromkeys(agents, "")) as begun:
        assert begun.notices == ()


def told(agents: int) -> list[tuple[str, str]]:
    """What is said at the end of a herd."""
    each = tuple(AgentSpec(number=number, workspace="own") for number in range(1, agents + 1))
    return list(summary(examples.spec(agents=each, name="demo")))


def test_the_end_says_one_line_of_each_who_changed_something(case: Case, repository: Path) -> None:
    works = begin(case)
    assert told(3) == [("info", "no agent changed anything in the workspace.")]
    for work in works.values():
        before = (work / ".git" / "index").read_bytes()
        git(work, "status")
        assert (work / ".git" / "index").read_bytes() != before, "it is written anew"
    assert told(3) == [("info", "no agent changed anything in the workspace.")]
    git(works[1], "commit", "-q", "--allow-empty", "-m", "two")
    (works[2] / "a").write_bytes(b"2\n")
    (works[2] / ".envrc").write_bytes(b"x\n")
    git(works[2], "add", ".")
    first, second, third, how = told(3)
    files = r"\d+ files of git's changed"
    assert re.fullmatch(rf"agent 1: only {files}: corral diff demo --agent 1 \.git", first[1])
    assert second[0] == "warning", "direnv runs it on the host"
    assert re.fullmatch(
        r"agent 2: held back: 1 new, 1 changed, 1 of them dangerous\. "
        rf"{files}, too: corral diff demo --agent 2 \.git",
        second[1],
    )
    assert third == ("info", "agent 3: nothing changed in the workspace.")
    assert "corral apply demo --agent N" in how[1]


def test_the_end_of_one_who_only_looked_at_git_says_nothing_of_it(
    case: Case, repository: Path
) -> None:
    work = begin(case)[1]
    git(work, "status")
    spec = examples.spec(agents=(AgentSpec(workspace="own"),), name="demo")
    assert list(summary(spec)) == [("info", "nothing changed in the workspace.")]
    git(work, "rm", "-q", "--cached", "b")
    (said, _nothing) = summary(spec)
    assert said[1].startswith("1 file of git's changed, too")
