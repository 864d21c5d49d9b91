"""What a recipe's file may say, and the command lines that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral import agents
from corral.agents import Reached, environment, headless, interactive
from corral.agents.load import parse_recipe, recipe_keys
from corral.agents.validate import dialects
from corral.errors import ConfigError, UsageError

BUILT_IN = ["aider", "claude", "codex", "gemini", "goose", "opencode"]
ANTHROPIC = Reached(name="anthropic", dialect="anthropic", url="http://anthropic.corral.internal")
OPENAI = Reached(name="mine", dialect="openai", url="http://mine.corral.internal/v1")
LEAST = 'summary = "One"\nprogram = "one"\ninteractive = ["one"]\n'


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path / "config"))
    folder = tmp_path / "config" / "agents"
    folder.mkdir(parents=True)
    return folder


def parse(text: str) -> agents.Recipe:
    return parse_recipe(text.encode(), "one", "/home/me/one.toml")


def test_every_recipe_of_corral_is_right_and_says_how_it_works_alone() -> None:
    assert agents.names() == BUILT_IN
    for name in BUILT_IN:
        recipe = agents.find(name)
        assert not recipe.own
        assert recipe.table.state
        reached = OPENAI if "openai" in dialects(recipe.table) else ANTHROPIC
        argv = headless(recipe, "do {prompt} {base_url}", reached)
        assert argv[0] == recipe.table.program
        assert "do {prompt} {base_url}" in argv, "a prompt is one word, and stays as it is"
        assert interactive(recipe, ["-x"], reached)[-1] == "-x"


def test_no_recipe_of_corral_leaves_permissions_to_be_asked_for() -> None:
    skips = {
        "claude": "--dangerously-skip-permissions",
        "codex": "--dangerously-bypass-approvals-and-sandbox",
        "aider": "--yes-always",
        "gemini": "--yolo",
    }
    for name, flag in skips.items():
        recipe = agents.find(name)
        assert flag in recipe.table.interactive
        assert flag in recipe.table.headless


def test_what_fits_the_gateway_is_filled_in() -> None:
    codex = headless(agents.find("codex"), "hi", OPENAI)
    assert any('base_url="http://mine.corral.internal/v1"' in word for word in codex)
    goose = environment(agents.find("goose"), "/home/me", ANTHROPIC)
    assert goose["GOOSE_PROVIDER"] == "anthropic"
    assert goose["ANTHROPIC_HOST"] == "http://anthropic.corral.internal"
    assert "GOOSE_PROVIDER" not in environment(agents.find("goose"), "/home/me")
    assert environment(agents.find("claude"), "/home/me")["CLAUDE_CONFIG_DIR"] == "/home/me/.claude"


def test_a_users_own_recipe_goes_before_corrals(own: Path) -> None:
    (own / "claude.toml").write_text(LEAST)
    (own / "one.toml").write_text(LEAST)
    assert "one" in agents.names()
    assert agents.find("one").own
    assert agents.find("claude").table.summary == "One"
    assert agents.is_known("one")
    assert not agents.is_known("two")
    assert not agents.is_known("./claude")


def test_a_recipe_that_others_can_change_is_refused(own: Path) -> None:
    (own / "one.toml").write_text(LEAST)
    (own / "one.toml").chmod(0o666)
    with pytest.raises(ConfigError, match="changed by others"):
        agents.find("one")


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        agents.find("cluade")
    assert caught.value.hint == "Did you mean claude?"
    with pytest.raises(ConfigError):
        agents.find("../claude")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("sumary = 1", "sumary is not a known key"),
        ("[install]\nnmp = 'x@1'", "install.nmp is not a known key"),
        ("[install]\nnpm = 'x@latest'", "one exact version"),
        ("[install]\npypi = 'x>=1'", "one exact version"),
        ("[install]\nnpm = '--prefix@1'", "one exact version"),
        ("[install]\nnpm = 'x@1'\nprogram = '../../bin/sh'", "plain path"),
        ("[install]\nneeds = ['node; rm']", "not NAME"),
        ("[gateway.anthropic]\narg = []", "gateway.anthropic.arg is not a known key"),
        ("[gateway.gopher]\nargs = []", "gateway"),
        ("state = ['~/../x']", "plain path below the home"),
        ("state = ['~']", "plain path below the home"),
        ("state = ['/etc']", "plain path below the home"),
        ("state = ['~/.a', '~/.a/b']", "overlap"),
        ("state = ['~/.a:b']", "character"),
        ("[files]\n'~/.other/x' = ''", "none of the folders"),
        ("[import]\ncopy = ['~/.ssh/**']", "none of the folders"),
        ("state = ['~/.a']\n[import]\ncopy = ['~/.a/../.ssh/*']", "plain path"),
        ("headless = ['one']", "needs {prompt}"),
        ("headless = ['two', '{prompt}']", "first word"),
        ("headless = ['one', '{prmpt}']", "{prmpt} is not known"),
        ("hosts = ['a b']", "hosts"),
        ("gateways = ['A B']", "not a name"),
        ("[env]\n'A B' = 'x'", "cannot be the name"),
        ("[env]\nA = 'sk-ant-REDUCED0a1b2c3d4e5f6g7h8i9j0'", "credential"),
        ("[secrets.KEY]\nhosts = ['*']", "cannot be for"),
        ("output = 'html'", "output"),
        ("[check]\narguments = 'x'", "they are a tool's"),
        ("[check]\ntol = 'x'", "check.tol is not a known key"),
        ("program = 7", "already"),
        ("x = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_the_key(more: str, expected: str) -> None:
    text = LEAST + more
    with pytest.raises(ConfigError) as caught:
        parse(text)
    shown = caught.value.message
    assert "/home/me/one.toml" in shown
    if expected != "already":
        assert expected in shown


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="program is missing"):
        parse('summary = "One"\ninteractive = ["one"]\n')


def test_a_prompt_is_text() -> None:
    recipe = agents.find("claude")
    for wrong in ("", " \n", "a\0b"):
        with pytest.raises(UsageError):
            headless(recipe, wrong)
    with pytest.raises(ConfigError, match="takes a prompt"):
        headless(parse(LEAST), "hi")


def test_every_key_is_documented_and_the_example_of_the_page_is_a_recipe() -> None:
    page = (Path(__file__).parents[3] / "docs" / "adding-an-agent.md").read_text()
    assert [key for key in recipe_keys() if f"`{key}`" not in page] == []
    example = page.partition("```toml\n")[2].partition("```")[0]
    recipe = parse_recipe(example.encode(), "mine", "the page")
    assert interactive(recipe)[0] == "mine"
