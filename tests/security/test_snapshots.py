"""A snapshot that is used for a next run has nothing that the last one left in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.review import origin
from corral.review.store import Review


def test_nothing_that_an_agent_left_is_in_a_snapshot_that_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is no change for a diff: of others nothing is pending, and there is no next one."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(origin, "SETTLED", -1e9)
    here = tmp_path / "here"
    (here / ".git" / "hooks").mkdir(parents=True)
    (here / "tool").write_text("as it was")
    (here / ".git" / "config").write_text("[core]\n")
    review = Review("again")
    with review.begin(str(here), None):
        work = review.folder / "1" / "work"
    config = work / ".git" / "config"
    times = config.stat()
    config.write_text("[evil]\n")
    os.utime(config, ns=(times.st_atime_ns, times.st_mtime_ns))
    (work / ".git" / "hooks" / "post-checkout").write_text("evil")
    (work / ".git" / "hooks").chmod(0o777)
    (work / "tool").chmod(0o666)
    (work / "evil").mkdir()
    assert review.changes() == [], "it was tried, and nothing is pending"
    assert config.read_text() == "[evil]\n"
    with review.begin(str(here), None):
        pass
    assert config.read_text() == "[core]\n"
    assert not list((work / ".git" / "hooks").iterdir()) and not (work / "evil").exists()
    for name in ("tool", ".git/hooks", ".git/config"):
        mine, its = (here / name).stat(), (work / name).stat()
        assert (mine.st_mode, mine.st_mtime_ns) == (its.st_mode, its.st_mtime_ns), name
