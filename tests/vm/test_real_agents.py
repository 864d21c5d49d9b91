"""The real programs of agents in real machines, installed as `corral run AGENT` installs them.

Each works on a project before scripted models behind the gateway: it calls a tool, changes a file,
is asked again and ends. What they say is scripted; all else is as it is for a user.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.scripted import Models
from tests.support.real_agents import SEARCH, SECONDS, check, project, worked

pytestmark = pytest.mark.timeout(SECONDS + 20)


async def test_claude_code_works_in_a_machine(tmp_path: Path, models: Models) -> None:
    call = ("Bash", {"command": SEARCH, "description": "look and write"})
    with project(tmp_path, "claude-project", models) as where:
        done = await worked(where, models, call, "claude", "--", "-p", "Fix it.")
        check(done, where, models, "/v1/messages", "ANTHROPIC_API_KEY")
        homes = tmp_path / "state" / "homes"
        assert list(homes.glob("*/claude/home/.claude/projects/*/*.jsonl"))  # for --resume


async def test_codex_works_in_a_machine(tmp_path: Path, models: Models) -> None:
    """Over responses, with the tool of its newest models: a program of calls."""
    code = f"const r = await tools.exec_command({{cmd: {json.dumps(SEARCH)}}}); text(r);"
    words = ("codex", "--", "exec", "--skip-git-repo-check", "Fix it.")
    with project(tmp_path, "codex-project", models) as where:
        done = await worked(where, models, ("exec", code), *words)
        check(done, where, models, "/v1/responses", "OPENAI_API_KEY")
