"""What an agent gives its sandbox, and what the user says in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral import agents
from corral.agents.homes import ensure_home, home_folder, seed, size_of
from corral.agents.programs import Found
from corral.agents.using import Use, reach, use
from corral.agents.validate import NAME
from corral.errors import ConfigError
from corral.spec import Loaded, Spec, collect, load_spec

PROGRAM = Found("/usr/bin/agent", ("/opt/agent",))


def said(user: Path, environ: dict[str, str] | None = None, **settings: object) -> Loaded:
    given = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return collect(user.parent / "project", given, {"HOME": str(user), **(environ or {})})


def used(user: Path, name: str, environ: dict[str, str], **settings: object) -> Use:
    recipe = agents.find(name)
    loaded = said(user, environ, **settings)
    home = ensure_home(recipe, loaded.place.workspace)
    return use(recipe, loaded, PROGRAM, home, reach(recipe, loaded, environ))


def spec_of(user: Path, found: Use, environ: dict[str, str]) -> Spec:
    project = user.parent / "project"
    return load_spec(project, {}, {"HOME": str(user), **environ}, extra=found.extra(), alone=True)


KEYS = {"ANTHROPIC_API_KEY": "k" * 20, "OPENAI_API_KEY": "o" * 20}


def test_a_spec_gets_home_tool_variables_and_gateway(user: Path) -> None:
    found = used(user, "claude", KEYS)
    assert found.reached is not None
    assert found.reached.url == "http://anthropic.corral.internal"
    spec = spec_of(user, found.__class__(**{
        name: getattr(found, name) for name in found.__struct_fields__ if name != "tools"
    }, tools=()), KEYS)  # fmt: skip
    (share,) = spec.shares
    assert share.target == f"{user}/.claude"
    assert share.writable
    assert share.source.startswith(str(user.parent / "state" / "homes"))
    assert dict(spec.run.env)["CLAUDE_CONFIG_DIR"] == f"{user}/.claude"
    assert [gateway.name for gateway in spec.gateways] == ["anthropic"]
    assert spec.network.mode == "none"
    assert spec.warnings == ()


def test_no_two_agents_have_one_home(user: Path) -> None:
    """A user's own recipe may be called claude-2; no name has a dot."""
    one, two = home_folder("claude-2", "/p"), home_folder("claude", "/p", 2)
    assert one.name == "claude-2" and two.name == "claude.2"
    assert not NAME.fullmatch(two.name)
    assert home_folder("claude", "/p").name == "claude"


def test_the_first_gateway_with_a_key_is_used(user: Path) -> None:
    both = used(user, "opencode", KEYS)
    assert both.gateways == ("anthropic",)
    only = used(user, "opencode", {"OPENAI_API_KEY": "o" * 20})
    assert only.gateways == ("openai",)
    assert only.reached is not None and only.reached.url.endswith("/v1")


def test_a_gateway_that_the_user_asks_for_goes_first(user: Path) -> None:
    (user.parent / "config" / "config.toml").write_text(
        '[gateway.mine]\ndialect = "openai"\nupstream = "http://localhost:1/v1"\n'
    )
    found = used(user, "codex", {}, network_gateways=["mine"])
    assert found.reached is not None
    assert found.reached.name == "mine"
    assert found.gateways == ()
    claude = used(user, "claude", KEYS, network_gateways=["mine"])
    assert claude.gateways == ("anthropic",), "one of another dialect is none for it"


def test_an_agent_that_may_use_only_some_gateways_uses_one_of_them(user: Path) -> None:
    recipe, loaded = agents.find("opencode"), said(user, KEYS)
    reached, added, _own = reach(recipe, loaded, KEYS, only=["openai"])
    assert reached is not None
    assert (reached.name, added) == ("openai", ("openai",))
    with pytest.raises(ConfigError, match="needs a gateway to anthropic"):
        reach(agents.find("claude"), loaded, KEYS, only=["openai"])


def test_without_a_key_it_is_said_how_to_give_one(user: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        used(user, "claude", {})
    assert "ANTHROPIC_API_KEY is not set" in caught.value.message
    assert caught.value.hint is not None
    assert "--share-auth" in caught.value.hint
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        used(user, "codex", {})
    assert caught.value.hint is not None
    assert "--share-auth" not in caught.value.hint


def test_a_key_that_the_user_passes_in_needs_no_gateway(user: Path) -> None:
    found = used(user, "claude", KEYS, run_env=["ANTHROPIC_API_KEY"])
    assert found.reached is None
    assert found.gateways == ()


def test_share_auth_uses_the_login_and_keeps_the_users_limits(user: Path) -> None:
    (user.parent / "config" / "config.toml").write_text("[gateway.anthropic]\nbudget_usd = 5\n")
    recipe, environ = agents.find("claude"), {"HOME": str(user)}
    _reached, names, gateways = reach(recipe, said(user), environ, share_auth=True)
    assert names == ("anthropic",)
    key = gateways["anthropic"].key
    assert key is not None
    assert (key.kind, key.value) == ("claude", (f"{user}/.claude/.credentials.json",))
    assert gateways["anthropic"].budget_usd == 5
    with pytest.raises(ConfigError, match="--share-auth is for claude"):
        reach(agents.find("codex"), said(user), environ, share_auth=True)


def test_a_share_of_the_users_at_its_place_is_used_instead(user: Path) -> None:
    mine = user.parent / "mine"
    mine.mkdir()
    found = used(user, "claude", KEYS, share=[f"{mine}:{user}/.claude:rw"])
    assert found.shares == ()


def test_secrets_are_the_recipes_unless_the_user_passes_them(user: Path) -> None:
    assert used(user, "gemini", {}).secrets == ("GEMINI_API_KEY",)
    extra = used(user, "gemini", {}).extra()
    assert extra.secrets["GEMINI_API_KEY"].header == "x-goog-api-key"
    passed = used(user, "gemini", {"GEMINI_API_KEY": "x"}, run_env=["GEMINI_API_KEY"])
    assert passed.secrets == ()


def test_the_command_line_starts_the_program_that_was_found(user: Path) -> None:
    found = used(user, "claude", KEYS)
    words = agents.interactive(found.recipe, ["-p", "hi"], found.reached)
    assert found.argv(words)[0] == "/usr/bin/agent"
    assert found.argv(words)[-2:] == ("-p", "hi")


def test_a_home_is_of_one_project_and_agent_and_stays(user: Path) -> None:
    recipe = agents.find("claude")
    home = ensure_home(recipe, "/srv/one")
    assert seed(recipe, home, "/srv/one") == []
    (source, place), = home.places  # fmt: skip
    assert place == "~/.claude"
    settings = Path(source, "settings.json")
    assert "skipDangerousModePermissionPrompt" in settings.read_text()
    assert settings.stat().st_mode & 0o777 == 0o600
    settings.write_text("mine")
    again = ensure_home(recipe, "/srv/one")
    seed(recipe, again, "/srv/one")
    assert settings.read_text() == "mine"
    assert ensure_home(recipe, "/srv/two").folder != home.folder
    assert ensure_home(recipe, "/srv/one", 2).folder.name == "claude.2"
    assert home_folder("claude", "/srv/one") == home.folder
    assert (home.folder.parent / "project").read_text() == "/srv/one\n"
    files, size = size_of(home.folder)
    assert files == 2
    assert size
    assert os.stat(home.folder / "home").st_mode & 0o077 == 0
