"""A short soak: twelve sandboxes, four at a time, many of them killed. The long one: make soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.test_soak import soak

SEED = 20  # has every kind of victim


@pytest.mark.timeout(300)
async def test_nothing_is_left_of_a_dozen_sandboxes(tmp_path: Path) -> None:
    await soak(tmp_path, 12, 4, SEED)
