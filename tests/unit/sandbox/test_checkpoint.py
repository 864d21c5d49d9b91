"""Saving a sandbox while it runs: whoever saves it has it alone, until it goes on."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from corral.channel import Reason
from corral.errors import CheckpointError
from corral.sandbox import Sandbox, checkpoint


class Line:
    """The channel to the guest; writes down what the guest is asked."""

    def __init__(self, done: list[str]) -> None:
        self.done = done

    def handle(self, *_handler: object) -> None:
        """Nothing is told."""

    async def suspend(self, method: str, _seconds: float) -> None:
        self.done.append(method)

    def resume(self) -> None:
        """Nothing was held back."""

    async def call(self, method: str, *_params: object, **_more: object) -> None:
        await asyncio.sleep(0)
        self.done.append(method)


class Machine:
    """Writes down what is done with it."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.why_gone = Reason()
        self.folder, self.memory, self.monitor = None, -1, self

    async def save(self, _state: int) -> None:
        self.done.append("state")

    async def resume(self) -> None:
        """Nothing else comes of it here."""


@pytest.fixture
def done() -> list[str]:
    """What is done with the machine and its guest."""
    return []


@pytest.fixture
async def box(done: list[str], monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(checkpoint, "keep_memory", lambda *_files, **_how: None)
    plan = SimpleNamespace(name="box", agents=[], machine=SimpleNamespace(checkpoints=True))
    given: list[Any] = [plan, Machine(done), Line(done), None, None, None]
    return Sandbox(*given)


WHOLE = ["freeze", "state", "copied", "thaw"]


async def test_one_is_saved_after_the_other_however_long_each_takes(
    box: Sandbox, done: list[str]
) -> None:
    """Else the one that ends first would let the machine go on under the other."""
    go_on = threading.Event()

    def long() -> None:
        assert go_on.wait(10)
        done.append("copied")

    def short() -> None:
        done.append("copied")

    first = asyncio.create_task(box.save(-1, -1, long))
    second = asyncio.create_task(box.save(-1, -1, short))
    ended, _waiting = await asyncio.wait((first, second), timeout=0.1)
    assert not ended and done == WHOLE[:2], "the second waits for the first"
    go_on.set()
    await asyncio.gather(first, second)
    assert done == WHOLE * 2


async def test_one_that_fails_or_is_given_up_keeps_no_other_from_being_saved(
    box: Sandbox, done: list[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    def copy() -> None:
        done.append("copied")

    with pytest.raises(CheckpointError, match="No space left"):
        await box.save(-1, -1, full)
    given_up = asyncio.create_task(box.save(-1, -1, copy))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    done.clear()
    await box.save(-1, -1, copy)
    assert done == WHOLE
