"""`corral agents`: a line for each agent, whatever the guest says of it."""

from __future__ import annotations

import pytest

from corral.cli.agents import _plain, _table
from corral.gateway.account import Spent
from corral.keeper.messages import AgentRow
from corral.sandbox.agents import AgentStatus, State


def row(task: str | None = None, spent: Spent | None = None, **status: object) -> AgentRow:
    fields = {"number": 1, "state": State.IDLE, **status}
    return AgentRow(status=AgentStatus(**fields), task=task, spent=spent or Spent())  # type: ignore[arg-type]


def test_a_line_holds_state_task_numbers_tokens_and_the_last_output() -> None:
    spent = Spent(requests=3, input=100, output=50, cache_read=7, usd=1.234)
    head, line = _table(
        (
            row(
                "analyze",
                spent,
                state=State.WORKING,
                cpu=12.34,
                memory=64 << 20,
                pids=9,
                quiet=75.0,
            ),
        )
    )
    assert head.split() == [
        *("AGENT", "STATE", "TASK", "CPU", "MEMORY", "PROCESSES", "TOKENS", "COST", "OUTPUT")
    ]
    assert line.split("  ")[0] == "1"
    for word in ("working", "analyze", "12.3 s", "64 MiB", " 9 ", "157", "1.23 USD", "1m ago"):
        assert word in line


def test_what_is_not_known_is_a_dash_and_why_it_is_dead_is_below() -> None:
    _head, line, note = _table(
        (row(state=State.DEAD, reason="it had no memory left", oom_kills=2, restarts=1),)
    )
    assert line.split() == ["1", "dead", *"-------"]
    assert note == (
        "agent 1: it had no memory left; 2 processes ended for lack of memory; "
        "its jail was made again once"
    )


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "a\nb\nc", "x" * 5000, "\x9b31m"])
def test_no_text_drives_the_terminal_or_fills_it(hostile: str) -> None:
    lines = _table((row(hostile, reason=hostile),))
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 200 for line in lines)


def test_json_has_the_status_at_the_top() -> None:
    found = _plain(row("test", number=2, quiet=1.5))
    assert (found["number"], found["state"], found["task"]) == (2, "idle", "test")
    assert found["spent"]["requests"] == 0
    assert found["quiet"] == 1.5
