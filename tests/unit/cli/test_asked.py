"""Which first words of `corral run` are agents, and what they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corral.cli import session
from corral.cli.asked import asked_for
from corral.cli.entry import cli


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[session.Request]:
    """What `corral run` was to do, in place of doing it."""
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path))
    seen: list[session.Request] = []

    def run(request: session.Request, *_rest: Any) -> int:
        seen.append(request)
        return 0

    monkeypatch.setattr(session, "run", run)
    return seen


def typed(*words: str) -> int:
    return CliRunner().invoke(cli, ["run", *words]).exit_code


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["claude"], ()),
        (["claude", "--", "-p", "fix it"], ("-p", "fix it")),
        (["claude", "-p", "fix it"], ("-p", "fix it")),
        (["--review", "claude", "--", "--", "x"], ("--", "x")),
        (["-e", "A=b", "codex", "exec", "hi"], ("exec", "hi")),
    ],
)
def test_an_agent_gets_its_own_arguments(
    requests: list[session.Request], words: list[str], args: tuple[str, ...]
) -> None:
    assert typed(*words) == 0
    assert requests[0].agent is not None
    assert requests[0].agent.args == args


@pytest.mark.parametrize(
    "words",
    [
        ["--", "claude"],
        ["--review", "--", "claude", "-p", "x"],
        ["./claude"],
        ["--", "./claude"],
        ["/usr/bin/claude"],
        ["--no-recipe", "claude"],
        ["sh", "-c", "claude"],
    ],
)
def test_other_words_are_plain_commands(requests: list[session.Request], words: list[str]) -> None:
    assert typed(*words) == 0
    assert requests[0].agent is None


def test_options_of_agents_are_for_agents(requests: list[session.Request]) -> None:
    assert typed("--share-auth", "--import-settings", "claude") == 0
    assert requests[0].agent is not None
    assert requests[0].agent.share_auth
    assert requests[0].agent.import_settings
    assert typed("--share-auth", "true") == 2
    assert len(requests) == 1


@pytest.mark.parametrize("option", ["--share-auth", "--import-settings"])
def test_they_are_options_of_what_stays_too(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"CORRAL_{name}_DIR", str(tmp_path / name))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    result = CliRunner().invoke(cli, ["up", "-d", option])
    assert "no agent of this sandbox has a recipe" in str(result.exception)


def test_a_wrong_recipe_of_the_users_is_told_and_no_plain_command(
    requests: list[session.Request], tmp_path: Path
) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "mine.toml").write_text("summary = 1\n")
    result = CliRunner().invoke(cli, ["run", "mine"])
    assert result.exit_code
    assert "mine.toml, line 1: summary" in str(result.exception)
    assert requests == []


def test_the_first_word_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path))
    complete = ShellComplete(cli, {}, "corral", "_X")
    assert [c.value for c in complete.get_completions(["run"], "cl")] == ["claude"]
    assert [c.value for c in complete.get_completions(["run", "sh"], "cl")] == []
    assert [c.value for c in complete.get_completions(["agent", "check"], "co")] == ["codex"]


def test_agents_are_listed_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"CORRAL_{name}_DIR", str(tmp_path / name))
    (tmp_path / "CONFIG" / "agents").mkdir(parents=True)
    (tmp_path / "CONFIG" / "agents" / "wrong.toml").write_text("x = \x1b\n")
    rows = json.loads(CliRunner().invoke(cli, ["agent", "list", "--json"]).output)
    assert {row["name"] for row in rows} >= {"claude", "codex", "?"}
    assert "\x1b" not in CliRunner().invoke(cli, ["agent", "list"]).output
    shown = CliRunner().invoke(cli, ["agent", "show", "claude"]).output
    assert 'program = "claude"' in shown
    value = json.loads(CliRunner().invoke(cli, ["agent", "show", "claude", "--json"]).output)
    assert value["interactive"][0] == "claude"
    home = json.loads(CliRunner().invoke(cli, ["agent", "home", "claude", "--json"]).output)
    assert home["exists"] is False


def test_no_word_at_all_names_no_agent() -> None:
    assert asked_for(("",)) is None
