"""A real program at a terminal. What depends on who runs them is in test_real_agents.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.scripted import Models, Reply
from tests.support.real_agents import SECONDS, project
from tests.support.terminals import CTRL_C, terminal

pytestmark = pytest.mark.timeout(SECONDS + 20)


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    async with Models() as found:
        yield found


async def test_claude_code_at_a_terminal(tmp_path: Path, models: Models) -> None:
    """It asks nothing in a fresh home: what is typed is answered on the screen."""
    call = ("Bash", {"command": "echo changed > file.txt", "description": "write"})
    models.script = (Reply(text="I-write.", tools=(call,)), Reply(text="Written-as-asked."))
    with project(tmp_path, "claude-terminal", models) as where:

        def talk() -> int:
            arguments = ("run", "-t", "claude")
            with terminal(where.folder, arguments, variables=where.variables) as person:
                person.expect("bypass", SECONDS / 2)
                person.type("Fix-it-please")
                person.expect("Fix-it-please", 60)
                person.type("\r")
                person.expect("Written-as-asked", 120)
                person.type(CTRL_C)
                person.expect("Ctrl", 30)
                person.type(CTRL_C)
                return person.wait(60)

        assert await asyncio.to_thread(talk) == 0
        assert (where.folder / "file.txt").read_text() == "changed\n"
    (first, *_more) = [seen for seen in models.seen if seen.offers_tools]
    assert "Fix-it-please" in json.dumps(first.body)
