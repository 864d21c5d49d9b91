"""Fixtures of the host tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .hosts import Host


@pytest.fixture(autouse=True)
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own caches is read or written."""
    for variable in ("CORRAL_CACHE_DIR", "CORRAL_STATE_DIR", "XDG_RUNTIME_DIR"):
        folder = tmp_path / variable.lower()
        folder.mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def make_host(tmp_path: Path) -> Callable[..., Host]:
    """Makes a host of files: make_host("ubuntu2404")."""

    def make(release: str = "debian12") -> Host:
        return Host(tmp_path / f"root-{release}", release)

    return make
