"""How a sandbox ends on every backend: told apart from a command's end, and without a trace."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
import pytest

from corral import Sandbox, Spec
from corral.errors import CorralError, SandboxGoneError
from tests.conformance.conftest import KINDS, LEFT_OUT
from tests.support import leftovers


@pytest.mark.parametrize("name", KINDS)
def test_no_kind_is_left_out_but_for_what_it_needs(name: str) -> None:
    if name in LEFT_OUT:
        assert KINDS[name].needs
        pytest.skip(f"needs {KINDS[name].needs}")


def assert_nothing_left() -> None:
    assert leftovers.wait_until_gone(15) == []
    left = {kind: found for kind, found in leftovers.everything().items() if found}
    assert not left


def kill_everything() -> None:
    """Every helper process of ours, as the kernel does when memory runs out."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_a_machine_that_dies_is_gone_and_no_command_failed(spec: Spec, tmp_path: Path) -> None:
    """Also for who reads lines, has files open, or comes later."""
    with contextlib.suppress(SandboxGoneError), Sandbox(spec, workspace=tmp_path) as box:
        process = box.spawn(["sleep", "1000"])
        lines = box.stream(["sh", "-c", "echo up; exec sleep 1000"])
        assert next(lines) == "up"
        threading.Timer(0.3, kill_everything).start()
        with pytest.raises(SandboxGoneError) as caught:
            process.wait(timeout=60)
        assert caught.value.hint
        for call in (
            lambda: next(lines),
            lambda: box.exec(["true"]),
            lambda: box.files.read("/tmp/x"),
            lambda: box.files.write("/tmp/x", b"x" * 1_000_000),
        ):
            with pytest.raises(SandboxGoneError):
                call()
    assert_nothing_left()


def test_an_interrupted_block_leaves_nothing(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Sandbox(spec, workspace=tmp_path) as box:
        box.spawn(["sleep", "1000"])
        box.exec(["sh", "-c", "echo kept > file"], check=True)
        raise KeyboardInterrupt
    assert_nothing_left()
    assert (tmp_path / "file").read_text() == "kept\n"
    with pytest.raises(CorralError):
        box.exec(["true"])
