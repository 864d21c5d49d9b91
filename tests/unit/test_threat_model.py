"""The threat model names every security test and every probe, and each that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from corral.verify import GUARANTEES, all_probes

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


def probes_on_the_page() -> dict[tuple[str, str], list[str]]:
    """(section, guarantee): the ids of its probes."""
    found = {}
    for part in re.split(r"^###? ", PAGE, flags=re.MULTILINE)[1:]:
        section, _, rest = part.partition("\n")
        for item in re.findall(r"^- \*([^*]+)\*: ((?:.+\n)(?:  .+\n)*)", rest, re.MULTILINE):
            found[section, " ".join(item[0].split())] = re.findall(r"`([a-z0-9-]+)`", item[1])
    return found


def test_every_probe_is_in_the_threat_model_with_its_guarantee() -> None:
    wanted: dict[tuple[str, str], list[str]] = {}
    for probe in all_probes():
        guarantee = GUARANTEES[probe.guarantee]
        wanted.setdefault((guarantee.section, guarantee.text), []).append(probe.id)
    page = probes_on_the_page()
    assert {what: sorted(ids) for what, ids in page.items()} == {
        what: sorted(ids) for what, ids in wanted.items()
    }
    assert len(all_probes()) >= 80
