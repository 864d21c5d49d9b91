"""Copies of a sandbox: what is copied is chosen by nobody in it, and no two are alike inside.

The copy of a workspace is made on the host, by the user, from a folder that agents have filled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.host.copies import copy_folder
from tests.support.copies import Copy, copies_of
from tests.support.sandboxes import lines, python, shell, succeeded


def test_links_are_copied_as_links_also_while_they_are_swapped(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (source / "b").symlink_to(outside)
    (source / "c").write_text("plain")
    (source / "d").symlink_to(outside / "secret")
    for number in range(100):
        (source / f"filler-{number}").touch()
    stop, swaps = threading.Event(), []

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("a", "b"), ("c", "d")):
                os.rename(source / one, source / "away")  # noqa: PTH104
                os.rename(source / other, source / one)  # noqa: PTH104
                os.rename(source / "away", source / other)  # noqa: PTH104
            swaps.append(1)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(40):
            copy_folder(str(source), str(tmp_path / f"target-{number}"))
    finally:
        stop.set()
        swapper.join()
    assert len(swaps) > 40
    found = [path for path in tmp_path.glob("target-*/**/*") if not path.is_symlink()]
    assert found and not [path for path in found if path.name == "secret"]
    assert "secret" not in {path.read_text() for path in found if path.is_file()}


def test_no_device_no_pipe_and_no_set_id_file_is_in_a_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "tool").touch()
    (source / "tool").chmod(0o6755)
    wanted = ["pipe"]
    if os.getuid() == 0:
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
        wanted.append("null")
    assert sorted(copy_folder(str(source), str(target))) == sorted(wanted)
    assert [entry.name for entry in target.iterdir()] == ["tool"]
    assert (target / "tool").stat().st_mode & 0o7777 == 0o755


@pytest.fixture(scope="module")
async def copies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Copy]]:
    """A sandbox and two copies of it, that run."""
    async with copies_of(tmp_path_factory.mktemp("copies"), 2) as found:
        yield found


DRAW = "import os, ssl; print(os.urandom(16).hex()); print(ssl.RAND_bytes(16).hex())"


async def test_no_two_copies_draw_the_same_random_bytes(copies: list[Copy]) -> None:
    drawn: list[str] = []
    for copy in copies:
        drawn += lines(await python(copy.sandbox, DRAW))
        drawn += lines(await shell(copy.sandbox, "cat /etc/machine-id"))
    assert len(drawn) == 9 == len(set(drawn))


async def test_a_copy_reaches_no_workspace_but_its_own(copies: list[Copy]) -> None:
    for number, copy in enumerate(copies):
        succeeded(await shell(copy.sandbox, f"echo {number} > mine"))
    for number, copy in enumerate(copies):
        assert lines(await shell(copy.sandbox, "cat mine")) == [f"{number}"]
        assert (copy.folder / "mine").read_text() == f"{number}\n"
        # Where it is on the host says nothing in the guest.
        others = [other.folder for other in copies if other.folder.name.startswith("copy")]
        tried = await shell(copy.sandbox, f"ls {' '.join(map(str, others))}")
        assert tried.status != 0 and tried.stdout == ""
