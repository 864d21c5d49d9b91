"""The documentation names everything that can be set, and none of its links is broken."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from corral.cli import VERBS
from corral.events import Event
from corral.spec import SETTINGS, VARIABLES

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
EVENTS = CONFIGURATION.partition("### Events of `--json`")[2].partition("\n## ")[0]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb, and every verb of a verb, by what is typed."""
    for verb, (module, _text) in VERBS.items():
        command: click.Command = importlib.import_module(f"corral.cli.{module}").command
        yield f"corral {verb}", command
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield f"corral {verb} {name}", inner


def options() -> Iterator[tuple[str, str]]:
    """(command, option) for every spelling of every option."""
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for spelling in (*parameter.opts, *parameter.secondary_opts):
                    yield name, spelling


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_is_documented_with_its_key_option_and_variable(key: str) -> None:
    setting = SETTINGS[key]
    settings = CONFIGURATION.replace(EVENTS, "")
    rows = [line for line in settings.splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1, f"{key} has {len(rows)} rows in docs/configuration.md"
    assert f"`{setting.option}`" in rows[0]
    if setting.variable:
        assert f"`{setting.variable}`" in rows[0]


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_is_documented(variable: str) -> None:
    assert f"`{variable}`" in CONFIGURATION


@pytest.mark.parametrize("kind", Event.__subclasses__(), ids=lambda kind: kind.__name__)
def test_an_event_is_documented_with_its_members(kind: type[Event]) -> None:
    tag = kind.__struct_config__.tag
    rows = [line for line in EVENTS.splitlines() if line.startswith(f"| `{tag}` |")]
    assert len(rows) == 1, f"{tag} has {len(rows)} rows in docs/configuration.md"
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in rows[0]] == []


def test_every_option_of_every_command_is_documented() -> None:
    missing = [
        f"{name} {option}"
        for name, option in options()
        if not re.search(rf"`{re.escape(option)}[` ]", CONFIGURATION)
    ]
    assert missing == []


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"`corral {verb}" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_with_the_two_commands() -> None:
    first = FENCE.search((ROOT / "README.md").read_text())
    assert first is not None
    assert first[0].splitlines()[1:3] == [
        "./corral run -- sh -c 'uname -a; id; git status; echo done > result.txt'",
        "make test",
    ]


def messages() -> list[list[str]]:
    """The fixed parts of every text in the program, in order; of the launcher, its lines."""
    found = [[line] for line in (ROOT / "corral").read_text().splitlines()]
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
                found.append([str(part) for part in parts])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append([node.value])
    return found


def test_errors_in_the_troubleshooting_are_errors_of_the_program() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    known = messages()
    for heading in re.findall(r"^### `(.+)`$", page, re.MULTILINE):
        pieces = [piece.strip() for piece in heading.split("…") if piece.strip(" .:()")]
        assert any(
            all(any(piece in part for part in parts) for piece in pieces) for parts in known
        ), f"no such message: {heading}"
