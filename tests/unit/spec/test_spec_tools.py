from __future__ import annotations

from pathlib import Path

import pytest

from corral.spec import missing_program_hint
from corral.spec.propose import propose, render
from corral.spec.toml import parse_document
from corral.spec.values import Base


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "home"


def program(home: Path, path: str, content: str = "#!/bin/sh\n") -> str:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o755)
    return str(file.parent)


def hint(home: Path, command: str, *folders: str) -> str | None:
    return missing_program_hint(command, ":".join(folders), str(home))


def test_a_program_of_a_version_manager_needs_the_managers_folder(home: Path) -> None:
    path = program(home, ".nvm/versions/node/v20/bin/node")
    assert hint(home, "node", path, "/usr/bin") == "node is in ~/.nvm: add --tool ~/.nvm"


def test_cargo_needs_rustup_and_not_the_folder_with_its_token(home: Path) -> None:
    path = program(home, ".cargo/bin/cargo")
    (home / ".rustup").mkdir()
    assert hint(home, "cargo", path) == (
        "cargo is in ~/.cargo/bin: add --tool ~/.cargo/bin --tool ~/.rustup"
    )


def test_a_link_and_a_scripts_interpreter_are_followed(home: Path) -> None:
    path = program(home, ".local/bin/ruff")
    venv = ".local/share/pipx/venvs/black/bin"
    python = program(home, ".pyenv/versions/3.12/bin/python")
    program(home, f"{venv}/black", f"#!{home}/{venv}/python\n")
    (home / venv / "python").symlink_to(f"{python}/python")
    (home / ".local/bin/black").symlink_to("../share/pipx/venvs/black/bin/black")
    assert hint(home, "ruff", path) == "ruff is in ~/.local/bin: add --tool ~/.local/bin"
    found = hint(home, "black", path)
    assert found is not None
    assert all(
        f"--tool ~/{each}" in found for each in (".local/bin", ".local/share/pipx", ".pyenv")
    )


def test_an_unpacked_program_comes_with_its_libraries(home: Path) -> None:
    path = program(home, "opt/node v20/bin/node")
    assert hint(home, "node", path) == "node is in ~/opt/node v20: add --tool ~/'opt/node v20'"


def test_hidden_folders_are_shared_as_little_as_possible(home: Path) -> None:
    assert hint(home, "docker-x", program(home, ".docker/bin/docker-x")) == (
        "docker-x is in ~/.docker/bin: add --tool ~/.docker/bin"
    )
    assert hint(home, "x", program(home, "bin/x")) == "x is in ~/bin: add --tool ~/bin"


def test_there_is_no_hint_for_what_is_not_in_the_home(home: Path) -> None:
    home.mkdir()
    assert hint(home, "sh", "/usr/bin", "/bin") is None
    assert hint(home, "no-such-program", "/usr/bin") is None
    assert hint(home, "top", program(home, "top")) is None, "the home itself is never proposed"
    assert missing_program_hint("sh", "", "/") is None


def test_a_proposal_is_what_the_project_seems_to_need(home: Path) -> None:
    path = program(home, ".nvm/v20/bin/node")
    program(home, ".nvm/v20/bin/npm")
    names = ["package.json", "go.mod", ".env", ".env.example", ".env.local", "src"]
    proposal = propose(names, path, str(home))
    assert list(proposal.tools) == ["~/.nvm"]
    assert proposal.masks == (".env", ".env.local")
    assert proposal.missing == {"go": "go.mod"}
    text = render(proposal)
    values = parse_document(text.encode(), "corral.toml", Base("/p", str(home), "/p")).values
    assert values["workspace.mask"] == ("/.env", "/.env.local")
    assert values["run.tools"] == (f"{home}/.nvm",)
    assert "go.mod asks for go" in text


def test_a_proposal_for_an_empty_folder_sets_nothing(home: Path) -> None:
    text = render(propose([], "", str(home)))
    assert parse_document(text.encode(), "corral.toml", Base("/p", str(home), "/p")).values == {}


def test_every_line_that_is_commented_out_is_valid_too(home: Path) -> None:
    text = render(propose([], "", str(home)))
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        lines.append(bare if " = " in bare or bare.startswith("[") else line)
    values = parse_document("\n".join(lines).encode(), "x", Base("/p", str(home), "/p")).values
    wanted = {"machine.cpus", "share", "run.tools", "run.env", "workspace.mask"} | {
        "network.allow",
        "network.gateways",
        "network.secrets",
    }
    assert wanted <= set(values)


def test_file_names_with_wild_characters_are_hidden_as_they_are(home: Path) -> None:
    text = render(propose(["a[1]*.key"], "", str(home)))
    values = parse_document(text.encode(), "x", Base("/p", str(home), "/p")).values
    assert values["workspace.mask"] == ("/a\\[1\\]\\*.key",)
