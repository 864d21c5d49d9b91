"""[[agent]] recipe = "claude": what each agent of a sandbox gets of its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.agents.herd import load_with_recipes
from corral.errors import UntrustedConfigError
from corral.events import silent
from corral.spec import Spec
from tests.support.agents import RECIPE, give_agent

HERD = """
[herd]
agents = 3

[[agent]]
recipe = "asker"
env = { ASKER_HOME = "mine" }

[[agent]]
recipe = "asker"
"""


@pytest.fixture
def project(user: Path) -> Path:
    give_agent(user, user.parent / "config", RECIPE.replace("state", 'hosts = ["a.test"]\nstate'))
    (user.parent / "config" / "config.toml").write_text(HERD)
    return user.parent / "project"


def loaded(project: Path, **settings: object) -> Spec:
    home = str(project.parent / "home")
    environ = {"HOME": home, "PATH": f"{home}/tools/bin", "ANTHROPIC_API_KEY": "k" * 20}
    given = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return load_with_recipes(project, given, environ, silent)


def test_each_agent_has_a_home_of_its_own_and_what_its_recipe_gives(project: Path) -> None:
    spec = loaded(project)
    first, second, third = spec.agents
    home = str(project.parent / "home")
    assert [share.target for share in (*first.shares, *second.shares)] == [f"{home}/.asker"] * 2
    assert first.shares[0].source != second.shares[0].source
    assert second.shares[0].source.endswith("/asker-2/home/.asker")
    assert first.tools == (f"{home}/tools",)
    assert dict(first.env) == {"ASKER_HOME": "mine"}, "what the table says goes first"
    assert dict(second.env) == {"ASKER_HOME": f"{home}/.asker"}
    assert first.gateways == ("anthropic",)
    assert [gateway.name for gateway in spec.gateways] == ["anthropic"]
    assert first.network is not None
    assert (first.network.mode, [rule.host for rule in first.network.allow]) == (
        "allow",
        ["a.test"],
    )
    assert spec.network.mode == "none"
    assert third.shares == ()
    assert third.tools == ()
    assert third.network is None


def test_no_network_that_the_user_says_holds(project: Path) -> None:
    spec = loaded(project, network_mode="none")
    assert spec.agents[0].network is None


def test_a_project_names_no_recipe_without_consent_and_nothing_is_made(project: Path) -> None:
    (project.parent / "config" / "config.toml").unlink()
    (project / "corral.toml").write_text('[[agent]]\nrecipe = "asker"\n')
    with pytest.raises(UntrustedConfigError):
        loaded(project)
    assert not (project.parent / "state" / "homes").exists()


def test_without_recipes_it_is_as_it_was(project: Path) -> None:
    (project.parent / "config" / "config.toml").write_text("[herd]\nagents = 2\n")
    assert [agent.shares for agent in loaded(project).agents] == [(), ()]
