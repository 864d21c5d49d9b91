"""How an optional part is installed is said for the environment that runs."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from corral import extras


def installed_from(monkeypatch: pytest.MonkeyPatch, direct_url: str | None) -> None:
    found = SimpleNamespace(read_text=lambda _name: direct_url)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _name: found)
    monkeypatch.setattr(sys, "executable", "/clone of mine/.venv/bin/python")


@pytest.mark.parametrize(
    ("direct_url", "said"),
    [
        (
            '{"url": "file:///clone%20of%20mine", "dir_info": {"editable": true}}',
            "--editable '/clone of mine[tmux]'",
        ),
        ('{"url": "file:///a/clone", "dir_info": {}}', "'/a/clone[tmux]'"),
        ('{"url": "https://example.test/corral.whl", "archive_info": {}}', "'corral[tmux]'"),
        ("nonsense", "'corral[tmux]'"),
        (None, "'corral[tmux]'"),
    ],
)
def test_the_command_is_one_that_works_here(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, said: str
) -> None:
    installed_from(monkeypatch, direct_url)
    python = "'/clone of mine/.venv/bin/python'"
    assert extras.install("tmux") == f"{python} -m pip install {said}"


def test_of_a_clone_it_names_the_clone() -> None:
    words = shlex.split(extras.install("tmux"))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert Path(words[-1].removesuffix("[tmux]"), "pyproject.toml").is_file()
