"""What killed commands and keepers left goes; what somebody makes or uses stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from corral.cli import keeping
from corral.errors import HostError, UnknownSandboxError
from corral.keeper import checkpoints, leftovers, store
from corral.keeper.store import Record, root


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test has left anything there."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def copy(record: Record) -> Record:
    """A copy that a killed `corral fork` was about to make, and what it was to go on from."""
    found = Record(f"{record.name}-1")
    (found.folder / checkpoints.WORKSPACE / "sub").mkdir(parents=True)
    (found.folder / checkpoints.WORKSPACE / "sub").chmod(0o500)
    (found.folder / "change.lock").touch()
    saved_for(record, found).mkdir(parents=True)
    (saved_for(record, found) / "memory").write_text("secrets and all")
    return found


def saved_for(record: Record, copy: Record) -> Path:
    return record.folder / checkpoints.FOLDER / f".fork-{copy.name}"


def test_half_a_copy_and_what_it_was_to_go_on_from_are_told_and_removed(
    record: Record, copy: Record
) -> None:
    left = {copy.folder, saved_for(record, copy)}
    assert left <= set(leftovers.clear(dry_run=True))
    assert all(path.exists() for path in left), "a dry run removes nothing"
    found = leftovers.clear(dry_run=False)
    assert saved_for(record, copy) in found
    assert not any(path.exists() for path in left)
    assert record.exists()
    assert leftovers.clear(dry_run=False) == []


def test_a_copy_that_is_being_made_stays(record: Record, copy: Record) -> None:
    with copy.changing():
        for dry_run in (True, False):
            assert leftovers.clear(dry_run=dry_run) == []
        leftovers.sweep(record)
        assert not leftovers.remove(copy)
        assert saved_for(record, copy).exists() and (copy.folder / checkpoints.WORKSPACE).exists()
    # Nothing came of it.
    assert not copy.folder.exists()


def test_a_start_removes_what_copies_are_not_made_from_any_more(
    record: Record, copy: Record
) -> None:
    other = Record(f"{record.name}-2")
    saved_for(record, other).mkdir()
    with other.changing():
        leftovers.sweep(record)
        assert saved_for(record, other).exists()
    assert not saved_for(record, copy).exists()


def test_half_a_copy_can_be_removed_by_its_name(record: Record, copy: Record) -> None:
    keeping.remove(copy.name, force=False)
    assert not copy.folder.exists() and not saved_for(record, copy).exists()
    with pytest.raises(UnknownSandboxError):
        keeping.remove(copy.name, force=False)
    assert record.exists()


def test_what_a_killed_keeper_left_half_way_goes_unless_there_is_one(record: Record) -> None:
    half = record.folder / checkpoints.FOLDER / ".one.abc"
    half.mkdir(parents=True)
    disks = [record.folder / f"disk.qcow2{ending}" for ending in ("", ".restored", ".new")]
    for disk in disks:
        disk.touch()
    with record.keeping():
        for dry_run in (True, False):
            assert leftovers.clear(dry_run=dry_run) == []
    for dry_run in (True, False):
        assert leftovers.clear(dry_run=dry_run) == [half, *disks[1:]]
    assert disks[0].exists() and not half.exists() and not disks[1].exists()


def test_half_a_removal_is_finished() -> None:
    gone = root() / ".gone-1234"
    gone.mkdir()
    assert leftovers.clear(dry_run=True) == [gone] and gone.exists()
    assert leftovers.clear(dry_run=False) == [gone] and not gone.exists()


def test_a_removal_that_others_still_write_in_is_left_for_the_next(
    copy: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper that copies into it sees a moment later that nobody waits for that any more."""

    def raced(_folder: Path) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    with copy.changing(), monkeypatch.context() as patched:
        patched.setattr(store, "remove_tree", raced)
        copy.drop(checkpoints.WORKSPACE)
        assert not (copy.folder / checkpoints.WORKSPACE).exists()
        assert len(store.left_gone()) == 1
    assert store.left_gone() == []


def test_whole_checkpoints_and_files_of_others_stay(record: Record) -> None:
    kept = record.folder / checkpoints.FOLDER / "one"
    kept.mkdir(parents=True)
    strange = root() / "file"
    strange.touch()
    assert leftovers.clear(dry_run=False) == []
    assert kept.exists() and strange.exists()
    strange.unlink()


def test_what_cannot_be_removed_is_a_plain_error(
    record: Record, copy: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_folder: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "remove_tree", fails)
        with pytest.raises(HostError, match="not permitted") as caught:
            leftovers.clear(dry_run=False)
    assert caught.value.hint
    leftovers.clear(dry_run=False)
