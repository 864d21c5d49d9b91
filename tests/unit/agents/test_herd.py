"""[[agent]] recipe = "claude": what each agent of a sandbox gets of its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.agents.herd import load_with_recipes
from corral.errors import ConfigError, UntrustedConfigError
from corral.events import Event, Notice, Report, silent
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


KEYS = {"ANTHROPIC_API_KEY": "k" * 20}


def loaded(project: Path, **settings: object) -> Spec:
    given = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return shared(project, given, KEYS, share_auth=False)


def shared(
    project: Path,
    settings: dict[str, object] | None = None,
    keys: dict[str, str] | None = None,
    report: Report = silent,
    *,
    share_auth: bool = True,
    import_settings: bool = False,
) -> Spec:
    """What is wanted with the options of agents that have a recipe."""
    home = str(project.parent / "home")
    environ = {"HOME": home, "PATH": f"{home}/tools/bin", **(keys or {})}
    return load_with_recipes(
        *(project, settings or {}, environ, report),
        share_auth=share_auth,
        import_settings=import_settings,
    )


def test_each_agent_has_a_home_of_its_own_and_what_its_recipe_gives(project: Path) -> None:
    spec = loaded(project)
    first, second, third = spec.agents
    home = str(project.parent / "home")
    assert [share.target for share in (*first.shares, *second.shares)] == [f"{home}/.asker"] * 2
    assert first.shares[0].source != second.shares[0].source
    assert second.shares[0].source.endswith("/asker.2/home/.asker")
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
    assert third.gateways == (), "what a recipe brings is for its own agent"


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


# --share-auth and --import-settings

LOGIN = RECIPE.replace("state =", 'share_auth = "claude"\nstate =')
OTHER = RECIPE.replace('["anthropic"]', '["openai"]')


def give_recipes(project: Path, **recipes: str) -> None:
    """Recipes of the user's, and a login."""
    login = project.parent / "home" / ".claude" / ".credentials.json"
    login.parent.mkdir(exist_ok=True)
    login.touch(mode=0o600)
    for name, text in recipes.items():
        (project.parent / "config" / "agents" / f"{name}.toml").write_text(text)


def test_each_whose_recipe_can_uses_the_login_and_no_other_agent_does(project: Path) -> None:
    give_recipes(project, asker=LOGIN)
    spec = shared(project)
    (gateway,) = spec.gateways
    assert gateway.key is not None
    assert (gateway.name, gateway.key.kind) == ("anthropic", "claude")
    assert gateway.key.value == (f"{project.parent}/home/.claude/.credentials.json",)
    assert [agent.gateways for agent in spec.agents] == [("anthropic",), ("anthropic",), ()]


def test_an_agent_beside_it_keeps_its_own_key(project: Path) -> None:
    give_recipes(project, asker=LOGIN, other=OTHER)
    config = project.parent / "config" / "config.toml"
    config.write_text('[[agent]]\nrecipe = "other"\n[[agent]]\nrecipe = "asker"\n')
    spec = shared(project, {}, {"OPENAI_API_KEY": "o" * 20})
    kinds = {gateway.name: gateway.key and gateway.key.kind for gateway in spec.gateways}
    assert kinds == {"openai": "env", "anthropic": "claude"}
    assert [agent.gateways for agent in spec.agents] == [("openai",), ("anthropic",)]


@pytest.mark.parametrize(
    ("tables", "settings"),
    [
        ("[[agent]]\nrecipe = 'asker'\n[[agent]]\nrecipe = 'mine'", {}),
        ("[[agent]]\nrecipe = 'asker'\n[[agent]]", {"network.gateways": ["anthropic"]}),
        (
            "[[agent]]\nrecipe = 'asker'\n[[agent]]\ngateways = ['anthropic']",
            {"network.gateways": ["anthropic"]},
        ),
    ],
)
def test_none_comes_to_use_the_login_by_the_same_gateway(
    project: Path, tables: str, settings: dict[str, object]
) -> None:
    give_recipes(project, asker=LOGIN, mine=RECIPE)
    (project.parent / "config" / "config.toml").write_text(tables)
    with pytest.raises(ConfigError, match="agent 2 would use the gateway anthropic") as caught:
        shared(project, settings, KEYS)
    assert caught.value.hint
    assert not (project.parent / "state" / "homes").exists(), "refused before anything is made"
    shared(project, settings, KEYS, share_auth=False)


def test_a_login_that_none_can_use_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="--share-auth is for claude"):
        shared(project, {}, KEYS)
    give_recipes(project, asker=LOGIN)
    table = "[[agent]]\nrecipe = 'asker'\ngateways = ['openai']\n[network]\ngateways = ['openai']"
    (project.parent / "config" / "config.toml").write_text(table)
    with pytest.raises(ConfigError, match="needs a gateway to anthropic"):
        shared(project, {}, {"OPENAI_API_KEY": "o" * 20})


def test_settings_are_imported_into_the_home_of_each(project: Path) -> None:
    copied = '"~/.asker/commands/**", "~/.asker/projects/{project}/**"'
    give_recipes(project, asker=RECIPE.replace('"~/.asker/commands/**"', copied))
    own = project.parent / "home" / ".asker"
    history = own / "projects" / str(project).replace("/", "-").replace("_", "-")
    (own / "commands").mkdir(parents=True)
    history.mkdir(parents=True)
    (history / "one.jsonl").write_text("{}\n")
    (own / "commands" / "fix.md").write_text("Fix it.")
    (own / "commands" / "key.md").write_text("sk-ant-api03-" + "Qw8Zt5Lp2Vn7Rx4Kb9Hy3Jm6Gd1Fs" * 3)
    seen: list[Event] = []
    spec = shared(project, {}, KEYS, seen.append, share_auth=False, import_settings=True)
    for agent in spec.agents[:2]:
        home = Path(agent.shares[0].source)
        assert [path.name for path in (home / "commands").iterdir()] == ["fix.md"]
        # By the folder that it finds its workspace at, which is not the user's own.
        assert (home / "projects" / "-workspace" / "one.jsonl").read_text() == "{}\n"
    said = [event.message for event in seen if isinstance(event, Notice)]
    assert [text.partition(" for")[0] for text in said[::2]] == [
        "agent 1: imported",
        "agent 2: imported",
    ]
    seen.clear()
    shared(project, {}, KEYS, seen.append, share_auth=False, import_settings=True)
    assert all("were imported before" in str(event) for event in seen) and len(seen) == 2


@pytest.mark.parametrize("option", ["share_auth", "import_settings"])
def test_without_a_recipe_there_is_nobody_to_give_it_to(project: Path, option: str) -> None:
    (project.parent / "config" / "config.toml").write_text("[herd]\nagents = 2\n")
    with pytest.raises(ConfigError, match="no agent of this sandbox has a recipe"):
        shared(
            project,
            share_auth=option == "share_auth",
            import_settings=option == "import_settings",
        )
