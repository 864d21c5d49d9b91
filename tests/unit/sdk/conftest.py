"""Sandboxes that are none: commands run as processes of this host."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from corral.sdk import AsyncSandbox, Sandbox
from corral.sdk.sandbox import Box
from tests.support.local import Local


class LocalAsyncSandbox(AsyncSandbox):
    """Its life is written down in `log`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.log: list[str] = []
        self._folder = folder

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Box]:
        self.log.append("up")
        local = Local(self._folder)
        try:
            yield cast(Box, local)
            self.log.append("synced")
        finally:
            await local.close()
            self.log.append("down")


class LocalSandbox(Sandbox):
    """The same, without asyncio."""

    def __init__(self, folder: Path) -> None:
        self._adopt(LocalAsyncSandbox(folder))

    @property
    def log(self) -> list[str]:
        """What has become of it."""
        assert isinstance(self._inner, LocalAsyncSandbox)
        return self._inner.log


@pytest.fixture
def box(tmp_path: Path) -> Iterator[LocalSandbox]:
    with LocalSandbox(tmp_path) as made:
        yield made
    assert made.log[-1] == "down"
