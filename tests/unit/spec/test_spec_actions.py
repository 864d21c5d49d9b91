"""Named actions: a project has them without consent, as they run inside the sandbox only."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from corral.cli.entry import cli
from corral.errors import ConfigError
from corral.spec import Action

from .conftest import User

PROJECT = """
[actions.test]
run = ["pytest", "-q"]
[actions.lint]
run = ["ruff", "check", "."]
cwd = "src/../tools"
timeout = "90s"
env = {MODE = "strict"}
"""


def test_a_project_that_nobody_accepted_may_have_actions(user: User) -> None:
    user.write_project(PROJECT)
    assert not user.collect().refused
    test, lint = user.spec().actions
    assert test == Action(name="test", run=("pytest", "-q"))
    assert lint == Action(
        name="lint",
        run=("ruff", "check", "."),
        cwd="tools",
        env=(("MODE", "strict"),),
        timeout=90.0,
    )


def test_an_action_of_a_higher_layer_takes_the_place_of_one_of_its_name(user: User) -> None:
    user.configure('[actions.test]\nrun = ["make", "test"]\n[actions.own]\nrun = ["true"]\n')
    user.write_project(PROJECT)
    spec = user.spec(overrides={"actions": ["lint=sh -c 'echo \"a b\"'"]})
    assert {action.name: action.run for action in spec.actions} == {
        "own": ("true",),
        "test": ("pytest", "-q"),
        "lint": ("sh", "-c", 'echo "a b"'),
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[actions.run]\nrun = ['x']\n", "line 1: actions.run: an action cannot be called run"),
        ("[actions.Test]\nrun = ['x']\n", "is not a name for an action"),
        ("[actions.a]\nrun = []\n", "the action a has no command"),
        ("[actions.a]\n", "run is missing"),
        ("[actions.a]\nrun = 'x'\n", "expected a list, not text"),
        ("[actions.a]\nrun = ['x']\ncmd = 'y'\n", "actions.a.cmd is not a known key"),
        ("[actions.a]\nrun = ['x']\ncwd = ''\n", "cwd is empty"),
        ("[actions.a]\nrun = ['x']\ntimeout = 'soon'\n", "soon"),
        ('[actions.a]\nrun = ["x\\u0000"]\n', "NUL"),
        ("actions = 3\n", "actions: expected a table"),
        ("[actions]\nrun = ['x']\n", "expected a table"),
        ("[actions.a]\nrun = ['" + "x" * 70_000 + "']\n", "longer than 64 KiB"),
        ("".join(f"[actions.a{n}]\nrun = ['x']\n" for n in range(101)), "at most 100"),
    ],
)
def test_what_is_no_action_is_told(user: User, text: str, match: str) -> None:
    user.write_project(text)
    with pytest.raises(ConfigError) as caught:
        user.spec()
    assert match in caught.value.message


@pytest.mark.parametrize("text", ["test", "=x", "a=", "a='x", "prompt=x"])
def test_what_is_no_action_on_the_command_line_is_told(user: User, text: str) -> None:
    with pytest.raises(ConfigError, match="action"):
        user.spec(overrides={"actions": [text]})


def test_actions_are_shown_as_they_are_written(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    path = user.write_project(PROJECT)
    monkeypatch.chdir(user.project)
    shown = CliRunner().invoke(cli, ["config", "show"]).output
    assert f'[actions.lint]  # {path}\nrun = ["ruff", "check", "."]\n' in shown
    assert 'env.MODE = "strict"\ncwd = "tools"\ntimeout = "1m30s"\n' in shown
    shown = CliRunner().invoke(cli, ["config", "show", "--json"]).output
    assert '"lint"' in shown and '"strict"' in shown
