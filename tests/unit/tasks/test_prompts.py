"""Prompts: the recipe's command line, its variables, and what the program prints as events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.agents import Recipe
from corral.agents.load import parse_recipe
from corral.agents.output import Called, Returned, Said
from corral.errors import TaskError
from corral.policy import Gateway, Key
from corral.tasks.commands import Place
from corral.tasks.model import Prompt
from corral.tasks.output import Events
from corral.tasks.parse import task
from corral.tasks.prompts import at_a_terminal, command, recipe_name

from .conftest import Bench

RECIPE = """
summary = "A script"
program = "sh"
interactive = ["sh", "-i", "{provider}"]
headless = ["sh", "-c", "{script}", "{prompt}"]
output = "claude-stream-json"
gateways = ["anthropic"]
[env]
HOME_OF_IT = "~/.script"
MINE = "recipe"
[gateway.anthropic]
env = {URL = "{base_url}"}
args = ["--at", "{model_host}"]
"""
KEY = Key(kind="env", value=("ANTHROPIC_API_KEY",))
ANTHROPIC = Gateway(name="claude-proxy", dialect="anthropic", upstream="https://a.test", key=KEY)
OPENAI = Gateway(name="openai", dialect="openai", upstream="https://o.test", key=KEY)


def recipe(script: str = "echo $0") -> Recipe:
    text = RECIPE.replace('"{script}"', json.dumps(script))
    return parse_recipe(text.encode(), "script", "script.toml")


def place(**more: Any) -> Place:
    return Place(agent=1, workdir="/w", folder=None, lane="agent-1", home="/home/me", **more)


def test_the_command_is_the_recipes_and_the_users_variables_count() -> None:
    found = command(
        Prompt(prompt="do {this}; $(id)", timeout_ms=1500),
        place(gateways=(OPENAI, ANTHROPIC), variables=frozenset({"MINE"})),
        recipe(),
    )
    assert found.argv == ("sh", "-c", "echo $0", "do {this}; $(id)")
    assert found.environment == {
        "HOME_OF_IT": "/home/me/.script",
        "URL": "http://claude-proxy.corral.internal",
    }
    assert (found.timeout, found.output) == (1.5, "claude-stream-json")


def test_a_person_gets_the_same_program_and_variables() -> None:
    here = place(gateways=(OPENAI, ANTHROPIC), variables=frozenset({"MINE"}))
    found = at_a_terminal(here, recipe())
    assert found.argv == ("sh", "-i", "--at", "claude-proxy.corral.internal")
    assert found.environment == command(Prompt(prompt="x"), here, recipe()).environment


def test_without_a_gateway_that_fits_the_program_is_told_of_none() -> None:
    found = command(Prompt(prompt="x"), place(gateways=(OPENAI,)), recipe())
    assert "URL" not in found.environment


def test_the_agents_own_recipe_is_meant_where_none_is_named() -> None:
    assert recipe_name(Prompt(prompt="x"), place(recipe="codex")) == "codex"
    assert recipe_name(Prompt(prompt="x", agent="claude"), place(recipe="codex")) == "claude"
    with pytest.raises(TaskError, match="agent 1 has no recipe"):
        recipe_name(Prompt(prompt="x"), place())


def said(text: str) -> dict[str, Any]:
    return {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}


def ended(text: str, *, ok: bool = True) -> dict[str, Any]:
    return {
        "type": "result",
        "subtype": "success" if ok else "error_during_execution",
        "is_error": not ok,
        "result": text,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }


@pytest.mark.parametrize(("ok", "status"), [(True, "done"), (False, "failed")])
async def test_what_the_program_prints_becomes_events_and_an_answer(
    bench: Bench, ok: bool, status: str
) -> None:
    call = {"type": "tool_use", "name": "Bash", "input": {"command": "ls \x1b[2J"}}
    lines = [said("I look \x1b[31m"), said("x"), ended("done \x1b[2J", ok=ok)]
    lines[1]["message"]["content"] = [call]
    (bench.folder / "out").write_text("".join(json.dumps(each) + "\n" for each in lines))
    bench.recipes["script"] = recipe("cat out")
    async with bench.tasks() as tasks:
        number = await tasks.submit(task({"action": "prompt", "agent": "script", "prompt": "go"}))
        result = await tasks.result(number)
    assert (result.status, result.exit_status) == (status, 0)
    assert result.answer == "done \\x1b[2J"
    assert result.events[0] == Said(text="I look \\x1b[31m")
    called = result.events[1]
    assert isinstance(called, Called) and called.tool == "Bash"
    assert "\x1b" not in called.arguments
    assert Returned(ok=ok, text="done \\x1b[2J") in result.events
    assert not result.events_truncated


def test_a_program_that_never_stops_talking_is_kept_in_part() -> None:
    events = Events("claude-stream-json")
    for number in range(1000):
        events.feed(json.dumps(said(f"{number} " + "\x1b" * 5000)).encode() + b"\n")
    events.feed(b"{" * 100_000 + b"\n[[[[\nnot JSON\n\xff\n")
    events.feed(b"")
    kept = [event for event in events.kept if isinstance(event, Said)]
    assert len(kept) == 200 and events.truncated
    assert (kept[0].text[:2], kept[-1].text[:4]) == ("0 ", "999 ")
    assert all(len(event.text) <= 8000 and "\x1b" not in event.text for event in kept)


def test_text_has_no_events() -> None:
    events = Events("text")
    events.feed(json.dumps(ended("x")).encode() + b"\n")
    assert (events.kept, events.answer, events.failed) == ((), None, False)
