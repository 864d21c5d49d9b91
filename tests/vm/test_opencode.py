"""OpenCode itself in a machine: the slowest to start of them, and so run once, as root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.scripted import Models
from tests.support.real_agents import SEARCH, SECONDS, check, project, worked

pytestmark = pytest.mark.timeout(SECONDS + 20)


async def test_opencode_works_in_a_machine(tmp_path: Path, models: Models) -> None:
    """Over chat completions, as with OpenRouter or a server of one's own."""
    settings = {
        "model": "own/a-model",
        "snapshot": False,
        "lsp": False,
        "formatter": False,
        "provider": {
            "own": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {
                    "baseURL": "http://openai.corral.internal/v1",
                    "apiKey": "{env:OPENAI_API_KEY}",
                },
                "models": {"a-model": {"name": "A model", "tool_call": True}},
            }
        },
    }
    call = ("bash", {"command": SEARCH, "description": "look and write"})
    words = ("--gateway", "openai", "opencode", "--", "run", "--auto", "Fix it.")
    with project(tmp_path, "opencode-project", models) as where:
        where.variables["CORRAL_CPUS"] = "2"  # the machine of a test has one
        (where.folder / "opencode.json").write_text(json.dumps(settings))
        done = await worked(where, models, call, *words)
        check(done, where, models, "/v1/chat/completions", "OPENAI_API_KEY")
