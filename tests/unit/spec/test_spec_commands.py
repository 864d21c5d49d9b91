"""`corral config` and `corral trust`, as typed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from corral.cli.config import command as config
from corral.cli.trust import command as trust
from corral.errors import ConfigError, CorralError, UntrustedConfigError, UsageError

from .conftest import User

Run = Callable[..., Result]


@pytest.fixture
def run(user: User, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(user.project)

    def run(command: click.Command, *arguments: str) -> Result:
        result = CliRunner().invoke(command, arguments)
        if isinstance(result.exception, CorralError):
            raise result.exception
        assert result.exception is None, result.exception
        return result

    return run


def test_init_writes_a_file_prints_it_and_it_can_be_used(run: Run, user: User) -> None:
    (user.project / ".env").touch()
    result = run(config, "init")
    written = (user.project / "corral.toml").read_text()
    assert result.stdout == written
    assert "Wrote" in result.stderr
    assert user.spec().workspace.mask == ("/.env",)


def test_init_does_not_overwrite_unless_told_to(run: Run, user: User) -> None:
    user.write_project("# mine\n")
    with pytest.raises(ConfigError, match="exists already") as caught:
        run(config, "init")
    assert "--force" in (caught.value.hint or "")
    assert (user.project / "corral.toml").read_text() == "# mine\n"
    run(config, "init", "--force")
    assert (user.project / "corral.toml").read_text() != "# mine\n"
    assert [path.name for path in user.project.iterdir()] == ["corral.toml"]


def test_show_is_toml_with_the_origin_of_each_value(
    run: Run, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.configure("[machine]\ncpus = 3\n[run]\nenv = {A_TOKEN = 'hunter2', B = 'x\"y'}")
    user.write_project("[workspace]\nmask = ['.env']")
    monkeypatch.setenv("CORRAL_MEMORY", "1g")
    user.folder("data")
    monkeypatch.setenv("CORRAL_SHARE", "~/data:/d")
    text = run(config, "show").stdout
    shown = tomllib.loads(text)
    assert shown["machine"]["cpus"] == 3
    assert shown["machine"]["memory"] == "1GiB"
    assert shown["workspace"]["mask"] == [".env"]
    assert shown["run"]["env"] == {"A_TOKEN": "(hidden)", "B": 'x"y'}
    assert shown["share"] == [{"source": f"{user.home}/data", "target": "/d", "writable": False}]
    assert f"cpus = 3  # {user.config}" in text
    assert 'memory = "1GiB"  # CORRAL_MEMORY' in text
    assert f'".env",  # {user.project}/corral.toml' in text
    assert 'accel = "auto"  # default' in text


def test_show_gives_json(run: Run, user: User) -> None:
    path = user.write_project("[machine]\ncpus = 99")
    data = json.loads(run(config, "show", "--json").stdout)
    assert data["settings"]["machine.cpus"] == {
        "value": 99,
        "origin": str(path),
        "layer": "project",
    }
    assert data["project"]["accepted"] is False
    assert data["project"]["asks"][0]["key"] == "machine.cpus"
    assert data["settings"]["run.timeout"] is None


def test_show_marks_what_is_not_accepted(run: Run, user: User) -> None:
    user.write_project("[machine]\ncpus = 99")
    result = run(config, "show")
    assert "cpus = 99" in result.stdout and "(not accepted yet)" in result.stdout
    assert "corral trust" in result.stderr


def test_schema_is_json(run: Run) -> None:
    assert json.loads(run(config, "schema").stdout)["title"] == "corral.toml"


def test_trust_shows_accepts_and_takes_back(run: Run, user: User) -> None:
    user.write_project("[machine]\ncpus = 99")
    before = run(trust, "--show").output
    assert "machine.cpus: 99 instead of" in before and "not accepted" in before
    with pytest.raises(UntrustedConfigError):
        user.spec()
    assert "Accepted" in run(trust).output
    assert user.spec().machine.cpus == 99
    assert "accepted as it is now" in run(trust, "--show").output
    user.write_project("[machine]\ncpus = 98")
    assert "has changed since" in run(trust, "--show").output
    assert "accepted no more" in run(trust, "--remove").output
    assert "was not accepted" in run(trust, "--remove").output


def test_trust_without_a_file_says_how_to_get_one(run: Run) -> None:
    with pytest.raises(ConfigError) as caught:
        run(trust)
    assert "corral config init" in (caught.value.hint or "")


def test_trust_of_a_named_file(run: Run, user: User) -> None:
    inside = user.project / "ci.toml"
    inside.write_text("[machine]\ncpus = 99")
    run(trust, "ci.toml")
    assert user.spec(config_file=inside).machine.cpus == 99


def test_trust_options_that_exclude_each_other(run: Run) -> None:
    with pytest.raises(UsageError):
        run(trust, "--show", "--remove")
