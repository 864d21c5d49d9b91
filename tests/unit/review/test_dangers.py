"""What runs or is obeyed by itself is called out; what is ordinary is not."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

import pytest

from corral.review.dangers import dangers
from corral.review.model import NONE, Change, Found, Side
from corral.review.names import hides, is_git
from corral.review.patch import Contents
from corral.review.surroundings import among

FILE = Side(kind="file")


def rules(path: str, old: Side | None = None, new: Side | None = FILE, *others: str) -> set[str]:
    """The rules that a change meets. others: what else is there."""
    found = {name: Found("file", 0o644, 0, "", NONE) for name in (path, *others)}
    change = Change(path=path, old=old, new=new, repository=is_git(path))
    return {d.rule for d in dangers(change, Contents(b"", b""), among(found))}


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
        ("requirements/dev.txt", "installing"),
        ("sub/package.yaml", "installing"),
        ("build.gradle.kts", "installing"),
        ("Pipfile", "locks"),
        ("go.mod", "locks"),
        ("flake.nix", "shells"),
        ("shell.nix", "shells"),
        ("sub/commondir", "git"),
        ("config.worktree", "git"),
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


@pytest.mark.parametrize(
    ("others", "path"),
    [
        (("x/HEAD", "x/objects", "x/refs"), "x/config"),
        (("x/HEAD", "x/objects", "x/refs"), "x/hooks/pre-push"),
        (("X/head", "x/objects", "x/REFS"), "x/config"),
        (("HEAD", "objects", "refs"), "config"),
        (("x/HEAD", "x/commondir"), "x/file"),
        (("x/HEAD", "x/commondir", "data/objects", "data/refs"), "data/config"),
    ],
)
def test_a_folder_that_git_takes_for_a_repository_is_dangerous(
    others: tuple[str, ...], path: str
) -> None:
    assert "repository" in rules(path, None, FILE, *others)
    for n in range(len(others)):
        rest = [*others[:n], *others[n + 1 :]]
        if path != "data/config" or n > 1:
            assert rules(path, None, FILE, *rest) == set(), f"without {others[n]}"


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
    judged = dangers(change, Contents(b"", b""), among(found))
    assert ("link" in {danger.rule for danger in judged}) == leads_out


@pytest.mark.parametrize("link", [".git/config", "d/../.git", "bare/config", "git/config"])
def test_a_link_into_a_folder_of_gits_is_dangerous(link: str) -> None:
    others = {path: Found("file", 0o644, 0, "", NONE) for path in ("bare/HEAD", "bare/commondir")}
    others["git"] = Found("link", 0o777, 0, ".git", NONE)
    change = Change(path="l", old=None, new=Side(kind="link", link=link))
    judged = dangers(change, Contents(b"", b""), among(others))
    assert [danger.rule for danger in judged] == ["link"]


@pytest.mark.parametrize(
    ("links", "path", "rule"),
    [
        ({".claude/settings.json": "../cfg/agent.json"}, "cfg/agent.json", "agents"),
        ({".claude": "cfg"}, "cfg/commands/x.md", "agents"),
        ({"sub/.GitHub": "../gh"}, "gh/workflows/ci.yml", "ci"),
        ({"CLAUDE.md": "docs/rules.md"}, "docs/rules.md", "agents"),
        ({".envrc": "/home/ada/project/env/sh"}, "env/sh", "shells"),
        ({".vscode": "far", "far": "a/b"}, "a/b/tasks.json", "editors"),
        ({".vscode": "far", "far": "a/b"}, "far", "editors"),
        ({"x/config": "../cfg"}, "cfg", "repository"),
        ({"y/package.json": "../base.json"}, "base.json", "scripts"),
    ],
)
def test_what_a_link_of_the_users_leads_to_is_as_dangerous(
    links: dict[str, str], path: str, rule: str
) -> None:
    """The link is not changed, so that nothing else would ask for a yes."""
    change = Change(path=path, old=FILE, new=FILE)
    contents = Contents(b"{}", b'{"scripts":{"prepare":"x"}}')
    plain = among({}, root="/home/ada/project")
    assert dangers(change, contents, plain) == ()
    base = [*links, "x/HEAD", "x/objects", "x/refs"]
    beside = among({}, base, links, "/home/ada/project")
    (danger,) = dangers(change, contents, beside)
    assert danger.rule == rule
    beyond = Change(path="beside/plain", old=FILE, new=FILE)
    assert dangers(beyond, contents, beside) == ()


def test_a_reason_says_as_what_a_file_is_reached_and_drives_no_terminal() -> None:
    beside = among({}, (), {".claude/\x1b[2J": "../cfg"})
    (danger,) = dangers(Change(path="cfg", old=FILE, new=FILE), Contents(b"", b""), beside)
    assert danger.reason.endswith("as it is “.claude/\\x1b[2J”, too")


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
        # Where case counts for the reader, and another key hides the one that is read.
        ("package.json", {"scripts": {"a": "b"}}, {"Scripts": {"a": "b"}, "scripts": {}}, True),
        ("package.json", {}, {"SCRIPTS": None, "scripts": {"postinstall": "evil"}}, True),
        ("package.json", {}, {"\u017fcripts": {"postinstall": "evil"}}, True),
        ("package.json", {}, {"lint-staged": {"*": "evil"}}, True),
        ("package.json", {}, {"simple-git-hooks": {"pre-commit": "evil"}}, True),
        ("package.json", {}, {"trustedDependencies": ["evil"]}, True),
        ("package.json", {}, {"gypfile": True}, True),
        ("package.json", {}, {"description": "x", "keywords": ["y"]}, False),
    ],
)
def test_of_a_manifest_what_installers_run_counts(
    name: str, old: object, new: object, dangerous: bool
) -> None:
    contents = Contents(json.dumps(old).encode(), json.dumps(new).encode())
    change = Change(path=f"sub/{name}", old=FILE, new=FILE)
    assert bool(dangers(change, contents, among({}))) == bool(dangerous)


def test_a_manifest_that_cannot_be_parsed_is_dangerous() -> None:
    change = Change(path="package.json", old=FILE, new=FILE)
    for content in (b"{", b"[" * 100_000, None, b"\xff"):
        assert dangers(change, Contents(b"{}", content), among({}))
    build = Contents(b"[project]\nname='a'", b"[build-system]\nrequires=['evil']")
    assert dangers(Change(path="pyproject.toml", old=FILE, new=FILE), build, among({}))
    plain = Contents(b"[project]\nname='a'", b"[project]\nname='b'")
    assert not dangers(Change(path="pyproject.toml", old=FILE, new=FILE), plain, among({}))
    for text in (b"[project]\ndependencies=['evil']", b"[tool.UV]\nindex=[{url='http://evil'}]"):
        found = Contents(b"[tool.ruff]\nselect=['E']", text)
        assert dangers(Change(path="pyproject.toml", old=FILE, new=FILE), found, among({}))


@pytest.mark.parametrize(
    ("old", "new", "dangerous"),
    [
        ('{"scripts":{}}', '{"scripts":{"x":"evil"},"scripts":{}}', True),
        ('{"scripts":{}}', '{"scripts":{},"scripts":{"x":"evil"}}', True),
        ('{"scripts":{"a":"b"}}', '{"scripts":{"a":"evil","a":"b"}}', True),
        ('{"//":"one","//":"two"}', '{"//":"one","//":"other"}', False),
    ],
)
def test_a_key_that_is_there_twice_counts_for_both(old: str, new: str, dangerous: bool) -> None:
    """Some readers take the first, others the last."""
    change = Change(path="package.json", old=FILE, new=FILE)
    found = dangers(change, Contents(old.encode(), new.encode()), among({}))
    assert bool(found) == dangerous


@pytest.mark.parametrize(
    ("name", "text", "dangerous"),
    [
        ("pyproject.toml", "[Build-System]\n[build-system]\nrequires=['evil']", True),
        ("pyproject.toml", "[Tool]\n[tool.uv]\nindex=[{url='http://evil'}]", True),
        ("pyproject.toml", "[project.entry-points.x]\na='evil:main'", True),
        ("pyproject.toml", "[tool.ruff]\nselect=['E']", False),
        ("Cargo.toml", "[package]\nbuild='evil.rs'", True),
        ("Cargo.toml", "[build-dependencies]\nevil='1'", True),
        ("Cargo.toml", "[target.'cfg(unix)'.dependencies]\nevil='1'", True),
        ("Cargo.toml", "[lib]\nproc-macro=true", True),
        ("Cargo.toml", "[package]\nname='x'\n[features]\na=[]", False),
    ],
)
def test_of_a_manifest_in_toml_too(name: str, text: str, dangerous: bool) -> None:
    old = b"[Build-System]\n" if "Build-System" in text else b""
    found = dangers(Change(path=name, old=FILE, new=FILE), Contents(old, text.encode()), among({}))
    assert {danger.rule for danger in found} == ({"scripts"} if dangerous else set())


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
