"""Shells complete corral's verbs and options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from corral.cli import VERBS

from .conftest import Typed

SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(typed: Typed, shell: str) -> None:
    finished = typed("completion", shell)
    assert finished.returncode == 0
    assert f"_CORRAL_COMPLETE={shell}_complete" in finished.stdout
    assert finished.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_understands_its_script(typed: Typed, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    script = typed("completion", shell).stdout
    checked = subprocess.run([program, "-n"], input=script, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def completed(typed: Typed, words: str, **environment: str) -> list[str]:
    """What bash is told for the last word."""
    finished = typed(
        _CORRAL_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
        **environment,
    )
    return [line.partition(",")[2] for line in finished.stdout.splitlines()]


def test_verbs_are_completed(typed: Typed) -> None:
    assert set(completed(typed, "corral ")) == set(VERBS)
    assert completed(typed, "corral do") == ["doctor"]


def test_options_and_inner_verbs_are_completed(typed: Typed) -> None:
    assert "--memory" in completed(typed, "corral run --me")
    assert set(completed(typed, "corral config ")) == {"init", "show", "schema"}
    assert set(completed(typed, "corral completion ")) == set(SHELLS)


def test_what_can_be_named_is_completed(typed: Typed, tmp_path: Path) -> None:
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text("[secrets.TOKEN]\nhosts = ['a.test']")
    environment = {"CORRAL_CONFIG_DIR": str(config.parent)}
    assert set(completed(typed, "corral run --net ")) == {"none", "allow", "internet"}
    assert "@python" in completed(typed, "corral run --allow @")
    assert completed(typed, "corral up --gateway an", **environment) == ["anthropic"]
    assert completed(typed, "corral run --secret ", **environment) == ["TOKEN"]
    config.write_text("[secrets")
    assert "TOKEN" not in completed(typed, "corral run --secret ", **environment)
