"""A sandbox's control group, on files. In a real kernel: tests/vm/test_limits.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.proc.groups import OWN_LEAF, Group


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a group; files appear in new ones, as in a cgroup file system."""
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    make = Path.mkdir

    def with_files(self: Path, *arguments: object, **options: object) -> None:
        make(self, *arguments, **options)  # type: ignore[arg-type]
        for name in ("cgroup.procs", "memory.max", "pids.max"):
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", with_files)
    return tmp_path


def test_a_group_has_its_limits_and_the_wardens_processes(base: Path) -> None:
    group = Group(str(base), "demo-1", ("memory",), [("memory.max", "100")])
    group.make()
    group.add(7)
    assert (base / "corral-demo-1" / "memory.max").read_text() == "100"
    assert (base / "corral-demo-1" / "cgroup.procs").read_text() == "7"
    assert not (base / OWN_LEAF).exists(), "what is enabled already needs no move"


def test_to_enable_a_controller_this_process_moves_out_of_the_way(base: Path) -> None:
    Group(str(base), "demo-1", ("memory", "pids"), [("pids.max", "50")]).make()
    assert (base / OWN_LEAF / "cgroup.procs").read_text() == str(os.getpid())
    assert (base / "cgroup.subtree_control").read_text().startswith("+pids")


def test_a_limit_that_is_refused_is_named(base: Path) -> None:
    group = Group(str(base), "demo-1", ("memory",), [("io.max", "x")])
    with pytest.raises(OSError) as caught:
        group.make()
    assert "io.max" in str(caught.value)


def test_a_kernel_that_does_not_count_swap_has_no_limit_of_it(base: Path) -> None:
    Group(str(base), "demo-1", ("memory",), [("memory.swap.max", "0"), ("memory.max", "9")]).make()
    assert (base / "corral-demo-1" / "memory.max").read_text() == "9"
    assert not (base / "corral-demo-1" / "memory.swap.max").exists()


def test_groups_of_sandboxes_that_were_killed_are_swept(base: Path) -> None:
    os.mkdir(base / "corral-old")  # noqa: PTH102 - empty, without the files
    Group(str(base), "new", ("memory",), []).make()
    assert not (base / "corral-old").exists()


def test_a_group_that_is_made_and_still_empty_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    first, second = (Group(str(tmp_path), name, ("memory",), []) for name in ("first", "second"))
    first.make()
    second.make()
    assert first.folder.is_dir()
    first.remove()
    second.remove()
    assert not list(tmp_path.glob("corral-*"))
