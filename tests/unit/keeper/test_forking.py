"""`corral fork`: which copies stay, and that nothing is left of those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from corral.errors import BootError
from corral.events import Report, silent
from corral.keeper import checkpoints, forking
from corral.keeper.messages import Forked
from corral.keeper.store import Record


class Launches:
    """Stands for keepers that are started: their sandbox comes up, and may be stopped at once."""

    def __init__(self, source: Record) -> None:
        self.saved = source.folder / checkpoints.FOLDER / ".fork-saved"
        self.fail: set[str] = set()

    async def save(self, _name: str, names: Sequence[str]) -> Forked:
        self.saved.mkdir(parents=True)
        for name in names:
            (Record(name).folder / checkpoints.WORKSPACE).mkdir()
        return Forked(folder=str(self.saved), notice=None)

    def launch(
        self, record: Record, _environ: Mapping[str, str], _report: Report, saved: Path
    ) -> None:
        assert saved == self.saved and record.exists()
        if record.name in self.fail:
            raise BootError("it does not come up.")


@pytest.fixture
def launches(record: Record, monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches(record)
    monkeypatch.setattr(forking, "_saved", found.save)
    monkeypatch.setattr(forking, "launch", found.launch)
    return found


def test_a_copy_that_was_up_and_is_stopped_already_stays(
    record: Record, launches: Launches
) -> None:
    names = forking.fork(record.name, 3, silent)
    assert names == [f"{record.name}-{number}" for number in (1, 2, 3)]
    for name in names:
        assert Record(name).exists() and not Record(name).is_kept()
        assert (Record(name).folder / checkpoints.WORKSPACE).is_dir()
    assert not launches.saved.exists()


def test_a_copy_that_does_not_come_up_is_removed_and_no_other(
    record: Record, launches: Launches
) -> None:
    first, second, third = (f"{record.name}-{number}" for number in (1, 2, 3))
    launches.fail.add(second)
    with pytest.raises(BootError):
        forking.fork(record.name, 3, silent)
    assert Record(first).exists() and Record(third).exists()
    assert not Record(second).folder.exists()
    assert not launches.saved.exists()


def test_a_fork_that_fails_before_anything_is_started_leaves_no_copy(
    record: Record, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_name: str, _names: Sequence[str]) -> Forked:
        raise BootError("it cannot be saved.")

    monkeypatch.setattr(forking, "_saved", fails)
    with pytest.raises(BootError):
        forking.fork(record.name, 2, silent)
    assert not Record(f"{record.name}-1").folder.exists()
