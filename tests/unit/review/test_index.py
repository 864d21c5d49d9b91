"""An index that git has only refreshed says the same; whatever a guest wrote, reading it ends."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.review.index import MAX_PATH, said
from tests.unit.review.trees import build

CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
NAMES = {"a": b"1\n", "src/a": b"2\n", "src/long/name/of/a/file": b"3\n", "src/long/\xe9": b"4\n"}


def git(root: Path, *arguments: str) -> None:
    words = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(words, cwd=root, env=CLEAN, check=True, capture_output=True)


@pytest.fixture(params=["2", "3", "4", "sha256"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    build(root, NAMES)
    git(root, "init", "-q", f"--object-format={'sha256' if request.param == 'sha256' else 'sha1'}")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    if request.param == "3":  # the version of an index with further flags
        (root / "later").write_text("x")
        git(root, "add", "--intent-to-add", "later")
    if request.param == "4":
        git(root, "update-index", "--index-version", "4")
    version = (root / ".git" / "index").read_bytes()[7]
    assert version == (2 if request.param == "sha256" else int(request.param))
    return root


def index(root: Path) -> bytes:
    return (root / ".git" / "index").read_bytes()


def test_a_refresh_says_the_same(repository: Path) -> None:
    before = index(repository)
    for path in NAMES:
        os.utime(repository / path, (1, 1))
    git(repository, "status")
    after = index(repository)
    assert after != before
    assert said(after) == said(before) is not None


@pytest.mark.parametrize(
    "work",
    [
        ("rm", "-q", "--cached", "a"),
        ("mv", "a", "b"),
        ("update-index", "--chmod=+x", "a"),
        ("update-index", "--assume-unchanged", "a"),
        ("update-index", "--skip-worktree", "src/a"),
        ("update-index", "--cacheinfo", "100644,{head},a"),
    ],
)
def test_what_is_staged_says_another_thing(repository: Path, work: tuple[str, ...]) -> None:
    before = said(index(repository))
    other = subprocess.run(
        ["git", "rev-parse", "HEAD:src/a"], cwd=repository, env=CLEAN, capture_output=True
    ).stdout.decode()
    git(repository, *(word.replace("{head}", other.strip()) for word in work))
    assert said(index(repository)) not in (before, None)


def test_one_that_is_split_or_broken_says_nothing(repository: Path) -> None:
    whole = index(repository)
    for broken in (b"", b"DIRC", whole[:-1], whole[:-40], whole[:40] + b"\xff" + whole[41:]):
        assert said(broken) is None
    git(repository, "update-index", "--split-index")
    assert said(index(repository)) is None


def sealed(content: bytes) -> bytes:
    return content + hashlib.sha1(content).digest()


@given(st.sampled_from((2, 3, 4)), st.integers(0, 2**32 - 1), st.binary(max_size=400))
def test_nothing_that_a_guest_writes_is_an_error(version: int, count: int, rest: bytes) -> None:
    head = b"DIRC" + version.to_bytes(4, "big") + count.to_bytes(4, "big")
    assert isinstance(said(sealed(head + rest)), bytes | None)


def test_names_that_grow_without_end_are_refused() -> None:
    """Each entry of version 4 takes what the last one had, and adds a little."""
    entry = bytes(60) + b"\0\0" + b"\0" + b"x" * 100 + b"\0"
    number = MAX_PATH // 100
    content = b"DIRC" + (4).to_bytes(4, "big") + number.to_bytes(4, "big")
    assert said(sealed(content + entry * number)) is not None
    content = content[:8] + (number + 1).to_bytes(4, "big")
    assert said(sealed(content + entry * (number + 1))) is None
