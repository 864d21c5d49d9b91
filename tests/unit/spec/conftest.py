"""A user with a home, a project and corral's own folders, all below one temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.spec import Spec, load_spec
from corral.spec.load import Loaded, collect


class User:
    """What a test does as a user: write files, ask for the Spec."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = self.home / "src" / "demo"
        self.config = root / "config" / "config.toml"
        self.environ = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        self.project.mkdir(parents=True)
        self.config.parent.mkdir()

    def folder(self, name: str) -> Path:
        """A folder in the home."""
        path = self.home / name
        path.mkdir(parents=True)
        return path

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def write_project(self, text: str) -> Path:
        path = self.project / "corral.toml"
        path.write_text(text)
        return path

    def spec(self, cwd: Path | None = None, **options: Any) -> Spec:
        overrides = options.pop("overrides", {})
        return load_spec(cwd or self.project, overrides, self.environ, **options)

    def collect(self, cwd: Path | None = None, **options: Any) -> Loaded:
        return collect(cwd or self.project, {}, self.environ, **options)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    user = User(tmp_path.resolve())
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(user.config.parent))
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(user.home))
    for name in ("CORRAL_CPUS", "CORRAL_CONFIG", "CORRAL_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    return user
