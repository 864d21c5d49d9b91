"""What runs or is obeyed by itself is called out; what is ordinary is not."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

import pytest

from corral.review.dangers import dangers, twins_of
from corral.review.model import NONE, Change, Found, Side
from corral.review.names import hides, is_git
from corral.review.patch import Contents

FILE = Side(kind="file")


def rules(path: str, old: Side | None = None, new: Side | None = FILE, *others: str) -> set[str]:
    """The rules that a change meets. others: what else is there."""
    found = {name: Found("file", 0o644, 0, "", NONE) for name in (path, *others)}
    change = Change(path=path, old=old, new=new, repository=is_git(path))
    return {d.rule for d in dangers(change, Contents(b"", b""), found, twins_of(found))}


@pytest.mark.parametrize(
    "path",
    [
        *("src/main.py", "README.md", "Makefile", "tests/conftest.py", "a b.txt", "é.txt"),
        *("docs/github/workflows.md", "src/settings.json", "my.env.py", "github/workflows/x"),
        *("Приложение.txt", "日本語.md", "setup.py.txt", "vscode/tasks.json", ".gitignore"),
    ],
)
def test_ordinary_files_are_not_dangerous(path: str) -> None:
    assert rules(path) == set()
    assert rules(path, FILE, None) == set()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (".github/workflows/ci.yml", "ci"),
        ("sub/.GitHub/Workflows/ci.yml", "ci"),
        (".gitlab-ci.yml", "ci"),
        ("Jenkinsfile", "ci"),
        (".claude/settings.local.json", "agents"),
        (".claude/commands/x.md", "agents"),
        (".mcp.json", "agents"),
        ("CLAUDE.md", "agents"),
        ("deep/in/AGENTS.md", "agents"),
        (".cursor/rules/x.mdc", "agents"),
        (".vscode/tasks.json", "editors"),
        (".VSCODE/settings.json", "editors"),
        (".vsc\u200dode/settings.json", "editors"),
        (".devcontainer/devcontainer.json", "editors"),
        ("sub/.devcontainer.json", "editors"),
        ("eslint.config.js", "editors"),
        (".helix/languages.toml", "editors"),
        ("rust-toolchain.toml", "shells"),
        (".pdbrc", "shells"),
        (".Rprofile", "shells"),
        (".gdbinit", "shells"),
        (".config/mise/conf.d/x.toml", "shells"),
        ("sub/.hg/hgrc", "git"),
        (".cirrus.yml", "ci"),
        ("requirements-dev.txt", "installing"),
        (".envrc", "shells"),
        (".envrc.", "shells"),
        (".env.local", "shells"),
        ("corral.toml", "shells"),
        ("setup.py", "installing"),
        ("sub/.npmrc", "installing"),
        (".cargo/config.toml", "installing"),
        ("package-lock.json", "locks"),
        ("uv.lock", "locks"),
        ("Cargo.lock", "locks"),
        (".pre-commit-config.yaml", "hooks"),
        (".husky/pre-commit", "git"),
        (".gitattributes", "git"),
        ("sub/.git/config", "repository"),
        ("sub/.GIT/config", "repository"),
        ("sub/.g\u200cit/config", "repository"),
        ("sub/.git", "repository"),
        ("a\x1b[2Jb", "name"),
        ("a\u202egpj.exe", "name"),
        ("trailing ", "name"),
        ("n" * 201, "name"),
        ("p\u0430yload.py", "name"),
        ("\uff53etup", "name"),
        ("\udcff", "name"),
    ],
)
def test_what_is_run_or_obeyed_by_itself_is(path: str, rule: str) -> None:
    assert rule in rules(path)
    if rule != "name":
        assert rule in rules(path, FILE, None), "removing it, too"


def test_a_folder_that_git_takes_for_a_repository_is_dangerous() -> None:
    bare = ("x/HEAD", "x/objects", "x/refs")
    assert "repository" in rules("x/config", None, FILE, *bare)
    assert "repository" in rules("x/hooks/pre-push", None, FILE, *bare)
    assert rules("x/config") == set()


def test_the_right_to_execute_is_dangerous_where_it_is_new() -> None:
    program = Side(kind="file", mode=0o755)
    assert rules("tool", FILE, program) == rules("tool", None, program) == {"executable"}
    assert rules("tool", program, program) == rules("tool", program, FILE) == set()


@pytest.mark.parametrize(
    ("path", "link", "leads_out"),
    [
        ("l", "/etc/passwd", True),
        ("l", "..", True),
        ("l", "../x", True),
        ("d/l", "../x", False),
        ("d/l", "../../x", True),
        ("l", "d/../../x", True),
        ("l", "d/../x", False),
        ("l", ".", False),
    ],
)
def test_a_link_that_leads_out_is_dangerous(path: str, link: str, leads_out: bool) -> None:
    assert ("link" in rules(path, None, Side(kind="link", link=link))) == leads_out


@pytest.mark.parametrize(
    ("link", "leads_out"),
    [
        ("d/up/../secret", True),  # up leads to the tree's own root
        ("d/up/x", False),
        ("d/./up//../x", True),
        ("home/x", True),
        ("round/x", False),  # in circles: it leads nowhere
        ("d/file/../x", False),
    ],
)
def test_a_link_that_leads_out_by_way_of_another_is_dangerous(link: str, leads_out: bool) -> None:
    links = {"d/up": "..", "home": "/home/ada", "round": "round", "d/up2": "up"}
    found = {path: Found("link", 0o777, 0, text, NONE) for path, text in links.items()}
    change = Change(path="l", old=None, new=Side(kind="link", link=link))
    judged = dangers(change, Contents(b"", b""), found, {})
    assert ("link" in {danger.rule for danger in judged}) == leads_out


def test_names_that_differ_only_in_case_are_dangerous() -> None:
    assert "name" in rules("src/Main.py", None, FILE, "src/main.py")
    assert rules("src/Main.py", FILE, FILE, "src/main.py") == set(), "it was so before"


@pytest.mark.parametrize(
    ("name", "old", "new", "dangerous"),
    [
        ("package.json", {"scripts": {"a": "b"}}, {"scripts": {"a": "b"}, "version": "2"}, False),
        ("package.json", {"scripts": {"a": "b"}}, {"scripts": {"a": "b", "postinstall": "c"}}, 1),
        ("package.json", {}, {"dependencies": {"evil": "1"}}, True),
        ("package.json", {}, [], True),
        ("composer.json", {"scripts": {}}, {}, True),
    ],
)
def test_of_a_manifest_what_installers_run_counts(
    name: str, old: object, new: object, dangerous: bool
) -> None:
    contents = Contents(json.dumps(old).encode(), json.dumps(new).encode())
    change = Change(path=f"sub/{name}", old=FILE, new=FILE)
    assert bool(dangers(change, contents, {}, {})) == bool(dangerous)


def test_a_manifest_that_cannot_be_parsed_is_dangerous() -> None:
    change = Change(path="package.json", old=FILE, new=FILE)
    for content in (b"{", b"[" * 100_000, None, b"\xff"):
        assert dangers(change, Contents(b"{}", content), {}, {})
    build = Contents(b"[project]\nname='a'", b"[build-system]\nrequires=['evil']")
    assert dangers(Change(path="pyproject.toml", old=FILE, new=FILE), build, {}, {})
    plain = Contents(b"[project]\nname='a'", b"[project]\nname='b'")
    assert not dangers(Change(path="pyproject.toml", old=FILE, new=FILE), plain, {}, {})
    for text in (b"[project]\ndependencies=['evil']", b"[tool.UV]\nindex=[{url='http://evil'}]"):
        found = Contents(b"[tool.ruff]\nselect=['E']", text)
        assert dangers(Change(path="pyproject.toml", old=FILE, new=FILE), found, {}, {})


def test_every_rule_of_the_list_has_a_reason_and_is_documented() -> None:
    text = resources.files("corral.review").joinpath("dangers.toml").read_text()
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "review.md").read_text()
    for name, rule in tomllib.loads(text).items():
        assert rule["reason"] and (rule["names"] or rule["folders"]), name
        assert f"`{name}`" in page


def test_a_name_says_why_it_hides() -> None:
    assert list(hides("a/b c/é")) == []
    assert list(hides("a\\b")) == ["a name with a backslash"]
