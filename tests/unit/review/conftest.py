"""A folder of the user's, and a sandbox's review of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from corral.review.applying import Outcome
from corral.review.showing import Shown
from corral.review.store import Review
from tests.unit.review.trees import Tree, build, read, replace


class Case:
    """here: the user's folder. work: what the sandbox works on."""

    def __init__(self, root: Path) -> None:
        self.here = root / "here"
        self.review = Review("demo")

    @property
    def work(self) -> Path:
        return self.review.folder / "1" / "work"

    def begin(self, tree: Tree) -> None:
        build(self.here, tree)
        with self.review.begin(str(self.here), None) as begun:
            assert begun.works[1] == str(self.work)

    def agent_makes(self, tree: Tree) -> None:
        replace(self.work, tree)

    def changed(self) -> list[str]:
        return [f"{shown.change.status} {shown.change.path}" for shown in self.review.changes()]

    def apply(self, *paths: str, dangerous: bool = False) -> Outcome:
        return self.review.apply(paths, lambda _shown: dangerous)

    def discard(self, *paths: str) -> None:
        self.review.discard(paths)

    @property
    def now(self) -> object:
        return read(self.here)


def paths(shown: list[Shown]) -> list[str]:
    return [one.change.path for one in shown]


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    with ExitStack():
        yield Case(tmp_path)
