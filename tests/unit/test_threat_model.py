"""The threat model names every security test, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def written() -> set[str]:
    """The ids of all tests in tests/security, without parameters."""
    found = set()
    for file in (ROOT / "tests" / "security").rglob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{file.relative_to(ROOT)}::{node.name}")
    found = {name for name in found if name.partition("::")[2].startswith("test_")}
    return found


def named() -> list[str]:
    """The ids on the page."""
    return re.findall(r"`(tests/[\w/.-]+::\w+)`", PAGE)


def test_every_test_that_the_threat_model_names_exists() -> None:
    assert named()
    assert not sorted(set(named()) - written())


def test_every_security_test_is_in_the_threat_model() -> None:
    assert not sorted(written() - set(named()))


def test_every_guarantee_says_how_it_is_enforced_and_what_attacks_it() -> None:
    guarantees = PAGE.partition("## Guarantees")[2].partition("## What is not protected")[0]
    rows = [line for line in guarantees.splitlines() if line.startswith("| ")]
    for row in (row for row in rows if not row.startswith("| Guarantee")):
        what, how, tests = (cell.strip() for cell in row.strip("|").split("|"))
        assert what and re.search(r"`tests/\S+::\w+`", tests), row
        assert how or what.startswith("(the control"), row
