from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def report() -> Reports:
    return Reports()


class Reports(list[object]):
    """A Report that keeps what it is given."""

    def __call__(self, event: object) -> None:
        self.append(event)
