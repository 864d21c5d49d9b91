"""Changes reach the user's folder only when they are applied, whole or not at all, never over the
user's own, and can be taken back.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from corral.errors import ReviewError, SandboxStateError
from corral.proc.crash import VARIABLE
from corral.review.compare import RESERVED
from corral.review.store import Review
from tests.unit.review.conftest import Case, paths
from tests.unit.review.test_patch import TREE
from tests.unit.review.trees import Tree, build, read

OLD: Tree = {"a": b"a\n", "d/b": b"b\n", "d/gone": b"gone\n", "l": "a", "run": (b"#!/bin/sh\n",)}
NEW: Tree = {"a": b"a2\n", "d/b": b"b\n", "new/deep/c": b"c\n", "l": "d", "run": (b"#!/bin/sh\n",)}


def test_nothing_changes_here_until_it_is_applied(case: Case) -> None:
    case.begin(OLD)
    assert case.changed() == []
    case.agent_makes(NEW)
    assert case.now == OLD
    assert case.changed() == ["M a", "D d/gone", "M l", "A new/deep/c"]
    outcome = case.apply()
    assert outcome.whole and len(outcome.applied) == 4
    assert case.now == NEW
    assert case.changed() == []
    assert case.apply().applied == []


def test_some_paths_are_applied_and_the_rest_stays(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    assert paths(case.apply("new", "a").applied) == ["a", "new/deep/c"]
    assert case.now == {**OLD, "a": b"a2\n", "new/deep/c": b"c\n"}
    assert case.changed() == ["D d/gone", "M l"]


def test_what_was_changed_here_meanwhile_is_never_overwritten(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes({**NEW, "both": b"agent\n", "same": b"same\n", "d/b": b"agent\n"})
    (case.here / "a").write_bytes(b"mine\n")
    (case.here / "both").write_bytes(b"mine\n")
    (case.here / "same").write_bytes(b"same\n")
    (case.here / "d" / "gone").write_bytes(b"mine, too\n")
    (case.here / "d" / "b").unlink()
    (case.here / "l").unlink()
    (case.here / "l").mkdir()
    outcome = case.apply()
    reasons = {one.change.path: one.standing.reason for one in outcome.conflicts}
    assert reasons == {
        "a": "it was changed here, too",
        "both": "there is another one here",
        "d/gone": "it was changed here, too",
        "d/b": "it was removed here",
        "l": "it is a folder here",
    }
    assert paths(outcome.applied) == ["same", "new/deep/c"]
    assert (case.here / "a").read_bytes() == b"mine\n"
    assert (case.here / "d" / "gone").read_bytes() == b"mine, too\n"
    # Once they are resolved, nothing is left of them.
    (case.here / "a").write_bytes(b"a\n")
    assert paths(case.apply("a").applied) == ["a"]


def test_a_touched_file_is_no_changed_file(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    os.utime(case.here / "a", (1, 1))
    (case.here / "a").chmod(0o600)
    assert case.apply().whole
    assert (case.here / "a").stat().st_mode & 0o777 == 0o600, "the mode is the user's"


def test_folders_and_files_take_each_others_place(case: Case) -> None:
    case.begin({"a": b"file", "b/x": b"x", "b/y/z": b"z", "l": "b"})
    new: Tree = {"a/x": b"x2", "b": b"file", "l/inside": b"y"}
    case.agent_makes(new)
    outcome = case.apply()
    assert outcome.whole, outcome.conflicts
    assert case.now == new
    assert case.review.undo().whole
    assert case.now == {"a": b"file", "b/x": b"x", "b/y/z": b"z", "l": "b"}


def test_a_folder_with_files_of_the_users_stays(case: Case) -> None:
    case.begin({"b/x": b"x"})
    (case.here / "b" / "mine").touch()
    case.agent_makes({"b": b"file"})
    outcome = case.apply()
    assert paths(outcome.applied) == ["b/x"] and paths(outcome.conflicts) == ["b"]
    assert case.now == {"b/mine": b""}


def test_the_executable_bit_is_a_change_that_needs_a_yes(case: Case) -> None:
    case.begin({"a": b"x", "b": (b"x",)})
    case.agent_makes({"a": (b"x",), "b": b"x"})
    (case.here / "a").chmod(0o640)
    outcome = case.apply()
    assert paths(outcome.refused) == ["a"] and paths(outcome.applied) == ["b"]
    assert case.apply("a", dangerous=True).whole
    assert (case.here / "a").stat().st_mode & 0o777 == 0o750
    assert (case.here / "b").stat().st_mode & 0o777 == 0o644


def test_undoing_brings_back_what_was_there_and_the_changes_are_pending_again(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    before = case.changed()
    case.apply()
    assert case.review.undo().whole
    assert case.now == OLD
    assert case.changed() == before
    with pytest.raises(ReviewError, match="nothing was applied"):
        case.review.undo()
    assert case.apply().whole
    assert case.now == NEW


def test_undoing_leaves_what_was_changed_since(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    case.apply()
    (case.here / "a").write_bytes(b"mine\n")
    outcome = case.review.undo()
    assert paths(outcome.conflicts) == ["a"]
    assert case.now == {**OLD, "a": b"mine\n"}
    (case.here / "a").write_bytes(b"a2\n")
    assert case.review.undo().whole
    assert case.now == OLD


def folders(root: Path) -> dict[str, int]:
    """Every folder below one, with its mode."""
    found = (path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())
    return {str(path.relative_to(root)): path.stat().st_mode & 0o7777 for path in found}


@pytest.mark.parametrize("point", ["", "apply-written", "apply-placed", "apply-remembered"])
def test_undoing_removes_the_folders_that_applying_made_and_no_others(
    case: Case, point: str
) -> None:
    build(case.here, OLD)
    (case.here / "logs" / "deep").mkdir(parents=True)
    (case.here / "logs").chmod(0o2770)
    case.begin({})
    case.agent_makes(
        {**OLD, "logs/x": b"x", "logs/deep/y": b"y", "new/deep/c": b"c", "mine/z": b""}
    )
    (case.here / "mine").mkdir(mode=0o700)
    before = folders(case.here)
    if point:
        assert crashed(point)
    assert case.apply().whole and (case.here / "new" / "deep").is_dir()
    assert case.review.undo().whole
    assert case.now == OLD and folders(case.here) == before


def test_undoing_leaves_what_the_user_had_made_the_same(case: Case) -> None:
    """Applying changed nothing there: there is nothing of it to be taken back."""
    case.begin({**OLD, "b": b"b"})
    case.agent_makes({**NEW, "b": (b"b",), "same": b"same", "link": "a"})
    (case.here / "same").write_bytes(b"same")
    (case.here / "link").symlink_to("a")
    (case.here / "b").chmod(0o755)
    (case.here / "d" / "gone").unlink()
    assert case.apply(dangerous=True).whole and case.changed() == []
    assert case.review.undo().whole
    kept = {path: what for path, what in OLD.items() if path != "d/gone"}
    assert case.now == {**kept, "b": (b"b",), "same": b"same", "link": "a"}
    assert case.changed() == ["M a", "M l", "A new/deep/c"]


def test_what_the_user_had_made_the_same_leaves_the_last_apply_to_be_taken_back(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    case.apply("a")
    (case.here / "new" / "deep").mkdir(parents=True)
    (case.here / "new" / "deep" / "c").write_bytes(b"c\n")
    assert paths(case.apply("new").applied) == ["new/deep/c"]
    assert case.changed() == ["D d/gone", "M l"]
    assert paths(case.review.undo().applied) == ["a"]
    assert case.now == {**OLD, "new/deep/c": b"c\n"}


def test_what_was_blocked_is_nothing_that_could_be_taken_back(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corral.review import placing

    case.begin(OLD)
    case.agent_makes({**OLD, "a": b"a2\n", "z": b"z"})
    real = placing._rename_new

    def late(folder: int, source: str, target: str) -> None:
        if target == "z":
            (case.here / "z").write_bytes(b"mine")
        real(folder, source, target)

    monkeypatch.setattr(placing, "_rename_new", late)
    assert paths(case.apply().conflicts) == ["z"]
    (case.here / "z").write_bytes(b"z")  # the user takes it over after all
    assert paths(case.review.undo().applied) == ["a"]
    assert case.now == {**OLD, "z": b"z"}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(old=TREE, new=TREE)
def test_any_tree_is_applied_and_taken_back(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    old: Tree,
    new: Tree,
) -> None:
    root = tmp_path_factory.mktemp("any")
    monkeypatch.setenv("CORRAL_STATE_DIR", str(root / "state"))
    case = Case(root)
    case.begin(old)
    case.agent_makes(new)
    assert case.apply(dangerous=True).whole
    assert case.now == new
    assert case.apply().applied == []
    if new != old:
        assert case.review.undo().whole
    assert case.now == old
    case.review.discard((["."] and [path.split("/")[0] for path in {**old, **new}]) or ["x"])
    assert read(case.work) == old


def test_discarding_some_leaves_the_rest(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes({**NEW, "run": b"no program", "x/y": b""})
    gone = case.review.discard(["a", "run", "x", "d"])
    assert [change.path for change in gone] == ["a", "d/gone", "run", "x/y"]
    assert case.changed() == ["M l", "A new/deep/c"]
    assert not (case.work / "x").exists()
    case.review.discard([])
    with pytest.raises(ReviewError, match="no changes"):
        Review.find("demo")
    assert case.now == OLD


def test_a_next_run_goes_on_from_what_is_pending(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    (case.here / "a").write_bytes(b"mine\n")
    with case.review.begin(str(case.here), None) as begun:
        assert begun.pending == 4 and read(case.work) == NEW
        assert "1 change of these" in begun.notices[1]
        with pytest.raises(SandboxStateError), case.review.begin(str(case.here), None):
            pass
        with pytest.raises(SandboxStateError):
            case.review.discard([])
        assert case.review.is_running()
    assert not case.review.is_running()
    (case.here / "a").write_bytes(b"a\n")
    case.apply()
    with case.review.begin(str(case.here), None) as begun:
        assert begun.pending == 0 and read(case.work) == NEW
    (case.work / "a").write_bytes(b"x")
    with (
        pytest.raises(ReviewError, match="changes of a sandbox demo on"),
        case.review.begin(str(case.here / "d"), None),
    ):
        pass


def test_masked_files_are_neither_shown_nor_changed(case: Case) -> None:
    build(case.here, {".env": b"secret", "d/key": b"secret", "a": b"a"})

    def hidden(path: str, _folder: bool) -> bool:
        return path in (".env", "d/key")

    with case.review.begin(str(case.here), hidden):
        assert read(case.work) == {".env": b"", "d/key": b"", "a": b"a"}
        assert b"secret" not in (case.review.folder / "1" / "base.pack").read_bytes()
        (case.work / "d").rename(case.work / "e")
        (case.work / ".env").unlink()
    assert case.changed() == ["A e/key"]
    case.apply()
    assert case.now == {".env": b"secret", "d/key": b"secret", "a": b"a", "e/key": b""}


CRASH = """
import sys
from corral.review.store import Review
Review("demo").undo() if sys.argv[1:] else Review("demo").apply([], lambda shown: True)
"""


def crashed(point: str, *, undo: bool = False) -> bool:
    """Apply all, or take it back, in a process that is killed at a point."""
    argv = [sys.executable, "-c", CRASH, *(["undo"] if undo else [])]
    done = subprocess.run(argv, env={**os.environ, VARIABLE: point}, timeout=30)
    return done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("undo", [False, True], ids=["apply", "undo"])
@pytest.mark.parametrize(
    "point",
    ["apply-written", "apply-taken", "apply-exchanged", "apply-placed", "apply-remembered"],
)
def test_killed_at_any_point_each_file_is_old_or_new_and_again_finishes(
    case: Case, point: str, undo: bool
) -> None:
    old: Tree = {f"{n}": b"old %d" % n for n in range(6)} | {"gone": b"gone"}
    new: Tree = {f"{n}": b"new %d" % n for n in range(6)} | {"come": b"come"}
    case.begin(old)
    case.agent_makes(new)
    if undo:
        case.apply()
        old, new = new, old
    assert crashed(point, undo=undo)
    for path, content in read(case.here).items():
        assert content in (old.get(path), new.get(path)) or path.endswith(RESERVED)
    if undo:
        with pytest.raises(ReviewError, match="was interrupted"):
            case.apply()
        assert case.review.undo().whole
    else:
        assert case.apply().whole
    assert case.now == new
    if not undo:
        assert case.review.undo().whole
        assert case.now == old
        assert len(case.changed()) == 8


@pytest.mark.parametrize("undo", [False, True], ids=["apply", "undo"])
def test_what_was_interrupted_is_finished_before_anything_else(case: Case, undo: bool) -> None:
    """A new snapshot would be made of a folder that is half of each, and forget the other half."""
    old: Tree = {f"{n}": b"old %d" % n for n in range(6)}
    new: Tree = {f"{n}": b"new %d" % n for n in range(6)}
    case.begin(old)
    case.agent_makes(new)
    if undo:
        case.apply()
    assert crashed("apply-placed", undo=undo)
    finish = "corral apply --undo demo" if undo else "corral apply demo"
    for gone in (None, (), ("1",)):
        with pytest.raises(ReviewError, match="was interrupted") as refused:
            case.begin({}) if gone is None else case.discard(*gone)
        assert refused.value.hint and finish in refused.value.hint
    assert (case.review.undo() if undo else case.apply()).whole
    assert case.now == (old if undo else new)
    assert len(case.changed()) == (6 if undo else 0)
    case.begin({})


@pytest.mark.parametrize("file", ["1/base", "1/applied", "review.json", "here"])
def test_what_was_interrupted_and_cannot_be_finished_can_be_thrown_away(
    case: Case, file: str
) -> None:
    case.begin(OLD)
    case.agent_makes(NEW)
    assert crashed("apply-placed")
    if file == "here":
        case.here.rename(case.here.with_name("elsewhere"))
    else:
        (case.review.folder / file).write_bytes(b"damaged")
    case.discard()
    assert not case.review.exists()


def test_an_edit_between_the_look_and_the_exchange_survives(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corral.review import placing

    case.begin(OLD)
    case.agent_makes(NEW)
    real = placing._exchange

    def late(folder: int, one: str, other: str) -> bool:
        if other == "a" and not late.done:  # type: ignore[attr-defined]
            late.done = True  # type: ignore[attr-defined]
            (case.here / "a").write_bytes(b"saved by an editor at the last moment\n")
        return real(folder, one, other)

    late.done = False  # type: ignore[attr-defined]
    monkeypatch.setattr(placing, "_exchange", late)
    outcome = case.apply()
    assert paths(outcome.conflicts) == ["a"]
    assert (case.here / "a").read_bytes() == b"saved by an editor at the last moment\n"
    assert not [entry for entry in case.here.iterdir() if entry.name.endswith(RESERVED)]


class Mapped:
    """A file of the user's that a program has mapped, and written to: such a page is not protected
    until the kernel has written it out, and what is written to it meanwhile changes no time.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.write(self._memory[:])

    def write(self, data: bytes) -> None:
        self._memory[: len(data)] = data


def test_what_a_program_wrote_to_a_mapped_file_is_never_overwritten(case: Case) -> None:
    build(case.here, OLD)
    mapped = {path: Mapped(case.here / path) for path in ("a", "d/b", "d/gone")}
    case.begin({})
    case.agent_makes({**NEW, "d/b": b"B\n"})
    mapped["a"].write(b"A\n")
    mapped["d/gone"].write(b"GONE\n")
    outcome = case.apply()
    assert paths(outcome.conflicts) == ["a", "d/gone"]
    assert case.now == {**NEW, "a": b"A\n", "d/b": b"B\n", "d/gone": b"GONE\n"}
    taken_over = Mapped(case.here / "d" / "b")
    taken_over.write(b"b!")
    assert paths(case.review.undo().conflicts) == ["d/b"]
    assert case.now == {**OLD, "a": b"A\n", "d/b": b"b!", "d/gone": b"GONE\n"}


@pytest.mark.parametrize("path", ["a", "d/gone"])
def test_what_a_program_writes_to_a_mapped_file_at_the_last_moment_survives(
    case: Case, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    from corral.review import placing

    build(case.here, OLD)
    mapped = Mapped(case.here / path)
    case.begin({})
    case.agent_makes(NEW)
    real = placing._renameat2

    def late(folder: int, source: str, target: str, flags: int) -> int:
        if path.rpartition("/")[2] in (source, target):
            mapped.write(b"!")
        return real(folder, source, target, flags)

    monkeypatch.setattr(placing, "_renameat2", late)
    assert paths(case.apply().conflicts) == [path]
    assert (case.here / path).read_bytes().startswith(b"!")
    assert not [found for found in case.here.rglob("*") if found.name.endswith(RESERVED)]


def test_what_is_saved_while_it_is_put_back_survives_too(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor saves twice: before the exchange, and before that is taken back."""
    from corral.review import placing

    case.begin(OLD)
    case.agent_makes(NEW)
    real = placing._exchange
    saved: list[bytes] = []

    def late(folder: int, one: str, other: str) -> bool:
        if other == "a":
            saved.append(b"saved %d" % len(saved))
            (case.here / "aside").write_bytes(saved[-1])
            (case.here / "aside").rename(case.here / "a")
        return real(folder, one, other)

    monkeypatch.setattr(placing, "_exchange", late)
    (conflict,) = case.apply().conflicts
    assert conflict.change.path == "a" and len(saved) == 2
    (kept,) = (path for path in case.here.iterdir() if path.name.endswith(RESERVED))
    assert kept.name in conflict.standing.reason
    assert {kept.read_bytes(), (case.here / "a").read_bytes()} == set(saved)


def test_a_full_disk_leaves_everything_as_it_was(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corral.review.pack import Pack

    case.begin(OLD)
    case.agent_makes(NEW)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Pack, "write_to", full)
        with pytest.raises(ReviewError, match="No space left"):
            case.apply()
    assert not list(Path(case.here).rglob(f"*{RESERVED}"))
    assert case.apply().whole and case.now == NEW


def test_what_is_left_takes_no_more_room_each_time(case: Case) -> None:
    case.begin(OLD)
    case.agent_makes({**OLD, ".envrc": b"x" * 100_000})
    pack = case.review.folder / "1" / "base.pack"
    size = pack.stat().st_size
    for _ in range(3):
        assert paths(case.apply().refused) == [".envrc"]
    assert pack.stat().st_size == size
    case.apply(dangerous=True)
    assert case.review.undo().whole and case.now == OLD
    assert case.apply(dangerous=True).whole and read(case.here)[".envrc"] == b"x" * 100_000


def test_a_name_that_another_folder_has_used_is_free_once_nothing_is_pending(
    case: Case, tmp_path: Path
) -> None:
    case.begin(OLD)
    other = build(tmp_path / "other", {"x": b"x"})
    with case.review.begin(str(other), None):
        assert read(case.work) == {"x": b"x"}


def test_a_folder_that_cannot_be_read_is_no_removal(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent may take an ordinary user's right to look into a folder of the snapshot."""
    from corral.review import tree

    case.begin(OLD)
    real = tree._list

    def closed(folder: int, path: str, *rest: Any) -> int:
        if path == "d":
            raise PermissionError(13, "Permission denied")
        return real(folder, path, *rest)

    monkeypatch.setattr(tree, "_list", closed)
    (change,) = case.review.changes()
    assert (change.change.path, change.change.new) == ("d", None) and change.change.problem
    assert paths(case.apply().conflicts) == ["d"]
    assert case.now == OLD
