"""A user with folders of corral's own, below tmp_path."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home; a project is beside it."""
    for name in ("config", "state", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"CORRAL_{name.upper()}_DIR", str(tmp_path / name))
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home
