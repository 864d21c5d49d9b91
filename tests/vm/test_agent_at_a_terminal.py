"""A real program at a terminal. What depends on who runs them is in test_real_agents.py."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.scripted import Models, Reply
from tests.support.corral import command, environment
from tests.support.real_agents import SECONDS, Project, project
from tests.support.tmux import pane_shows, press, sockets_in

pytestmark = pytest.mark.timeout(SECONDS + 20)

NAME = "claude-in-tmux"
PANE = "agents"  # of the window of this name, the only one: agent 1


@pytest.fixture
def where(tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose sandbox has Claude Code as its agent, by the user's own file."""
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    with project(tmp_path, NAME, models) as found, sockets_in(tmp_path):
        with (tmp_path / "config" / "config.toml").open("a") as file:
            file.write('\n[[agent]]\nrecipe = "claude"\n')
        found.variables["CORRAL_CPUS"] = "2"
        try:
            yield found
        finally:
            corral(found, "rm", "-f", NAME)


def corral(where: Project, *arguments: str) -> str:
    finished = subprocess.run(
        command(*arguments),
        cwd=where.folder,
        env=environment(where.variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished
    return finished.stdout


async def test_claude_code_in_a_pane_of_tmux(where: Project, models: Models) -> None:
    """It asks nothing in a fresh home: what is typed in its pane is answered on the screen."""
    call = ("Bash", {"command": "echo changed > file.txt", "description": "write"})
    models.script = (Reply(text="I-write.", tools=(call,)), Reply(text="Written-as-asked."))

    def talk() -> str:
        corral(where, "up", "-d")
        corral(where, "tmux", NAME, "--detach")
        pane_shows(NAME, PANE, "bypass permissions on", SECONDS / 2)
        press(NAME, PANE, "-l", "Fix-it-please")
        pane_shows(NAME, PANE, "Fix-it-please", 60)
        press(NAME, PANE, "Enter")
        pane_shows(NAME, PANE, "Written-as-asked", 120)
        return corral(where, "tmux", NAME, "--capture", "1")

    screen = await asyncio.to_thread(talk)
    assert "Fix-it-please" in screen and "Written-as-asked" in screen
    assert (where.folder / "file.txt").read_text() == "changed\n"
    (first, *_more) = [seen for seen in models.seen if seen.offers_tools]
    assert "Fix-it-please" in json.dumps(first.body)
