"""A guest whose first process is hostile ends its own task badly, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from corral.channel import Execution
from corral.tasks.parse import task

from .conftest import Bench, run


class Endless:
    """A command that has ended with 0, and whose output does not. more: what it goes on with."""

    stderr = None

    def __init__(self, more: bytes) -> None:
        self.resets: set[str] = set()
        self.stdin = EndlessStream(self, "stdin", more)
        self.stdout = EndlessStream(self, "stdout", more)

    async def wait(self) -> int:
        return 0


class EndlessStream:
    """One of its streams."""

    def __init__(self, command: Endless, name: str, more: bytes) -> None:
        self._command, self._name, self._more = command, name, more
        self._begun = False

    async def read(self, _limit: int) -> bytes:
        if not self._begun:
            self._begun = True
            return b"it wrote\n"
        await asyncio.sleep(0.01 if self._more else 3600)
        return self._more

    async def write(self, _data: bytes) -> None:
        """It takes anything."""

    async def end(self) -> None:
        """It is told, and does not care."""

    def reset(self, _reason: str = "") -> None:
        self._command.resets.add(self._name)


async def test_output_that_does_not_end_with_its_command_holds_up_no_later_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nothing more comes, or always more."""
    monkeypatch.setattr("corral.tasks.run.DRAINING", 0.3)
    lies = [Endless(b""), Endless(b"more\n")]

    @contextlib.asynccontextmanager
    async def begin(argv: Sequence[str], **_options: object) -> AsyncIterator[Execution]:
        yield cast(Execution, lies[int(argv[0])])

    monkeypatch.setattr(bench, "begin", begin)
    async with bench.tasks() as tasks, asyncio.timeout(10):
        numbers = [await tasks.submit(task(run(str(each)))) for each in range(2)]
        found = [await tasks.result(number) for number in numbers]
    for result, lie in zip(found, lies, strict=True):
        assert (result.status, result.exit_status) == ("error", None)
        assert result.error == "the sandbox did not end the command's output."
        assert result.stdout.startswith("it wrote\n")
        assert lie.resets == {"stdin", "stdout"}
