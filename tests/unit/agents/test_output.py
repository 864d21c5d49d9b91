"""What agents print becomes events, whatever a guest writes in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.agents.model import OUTPUT_FORMATS
from corral.agents.output import (
    MAX_EVENTS,
    MAX_LINE,
    Called,
    OutputEvent,
    Reader,
    Returned,
    Said,
    Used,
)
from corral.agents.output.events import MAX_TEXT


def read(form: Any, *lines: object) -> list[OutputEvent]:
    reader = Reader(form)
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return [*reader.feed(data), *reader.end()]


def test_claude() -> None:
    events = read(
        "claude-stream-json",
        {"type": "system", "subtype": "init"},
        {"type": "assistant", "message": {"content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}},
        ]}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "a"}]}},
        {"type": "result", "subtype": "success", "is_error": False, "result": "Done.",
         "total_cost_usd": 0.5,
         "usage": {"input_tokens": 3, "cache_creation_input_tokens": 4,
                   "cache_read_input_tokens": 5, "output_tokens": 6}},
    )  # fmt: skip
    assert events == [
        Said(text="I look."),
        Called(tool="Bash", arguments='{"command":"ls"}'),
        Used(input_tokens=7, output_tokens=6, cached_tokens=5, cost_usd=0.5),
        Returned(ok=True, text="Done."),
    ]


def test_codex() -> None:
    events = read(
        "codex-json",
        {"type": "thread.started", "thread_id": "1"},
        {"type": "item.started", "item": {"type": "command_execution", "command": "ls"}},
        {"type": "item.completed", "item": {"type": "command_execution", "command": "ls"}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "Done."}},
        {"type": "turn.completed",
         "usage": {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 2}},
        {"type": "turn.failed", "error": {"message": "no"}},
    )  # fmt: skip
    assert events == [
        Called(tool="command_execution", arguments="ls"),
        Said(text="Done."),
        Used(input_tokens=5, output_tokens=2, cached_tokens=4),
        Returned(ok=True),
        Returned(ok=False, text="no"),
    ]


def test_opencode_and_gemini() -> None:
    opencode = read(
        "opencode-json",
        {"type": "tool_use", "part": {"tool": "bash", "state": {"input": {"command": "ls"}}}},
        {"type": "text", "part": {"text": "Done."}},
        {"type": "step_finish", "part": {"reason": "stop", "cost": 0.1, "tokens": {
            "input": 1, "output": 2, "reasoning": 3, "cache": {"read": 4, "write": 5}}}},
    )  # fmt: skip
    assert opencode == [
        Called(tool="bash", arguments='{"command":"ls"}'),
        Said(text="Done."),
        Used(input_tokens=1, output_tokens=5, cached_tokens=4, cost_usd=0.1),
        Returned(ok=True),
    ]
    gemini = read(
        "gemini-json",
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "tool_use", "tool_name": "shell", "parameters": {}},
        {"type": "message", "role": "assistant", "content": "Done."},
        {"type": "result", "status": "success", "stats": {"input_tokens": 3, "output_tokens": 4}},
    )
    assert [type(event) for event in gemini] == [Called, Said, Used, Returned]


def test_text_is_what_it_is_line_by_line() -> None:
    reader = Reader("text")
    assert reader.feed(b"one\ntw") == [Said(text="one")]
    assert reader.feed(b"o\xff\n") == [Said(text="two\ufffd")]
    assert reader.feed(b"three") == []
    assert reader.end() == [Said(text="three")]


def test_a_line_without_end_takes_no_memory_and_what_follows_is_read() -> None:
    reader = Reader("claude-stream-json")
    for _ in range(3):
        assert reader.feed(b"x" * MAX_LINE) == []
        assert len(reader._line) <= MAX_LINE
    assert reader.feed(b'\n{"type":"result"}\n')[-1] == Returned(ok=False)
    assert reader.passed_over == 1


def test_texts_and_numbers_have_bounds() -> None:
    (said,) = read("opencode-json", {"type": "text", "part": {"text": "x" * (MAX_TEXT + 9)}})
    assert isinstance(said, Said)
    assert len(said.text) == MAX_TEXT
    used = read("claude-stream-json", {
        "type": "result", "total_cost_usd": "7", "usage": {"input_tokens": -1}
    })[0]  # fmt: skip
    assert used == Used()


def test_a_flood_of_events_ends_and_the_result_is_still_told() -> None:
    reader = Reader("text")
    kept = reader.feed(b"\n" * (MAX_EVENTS + 500))
    assert len(kept) == MAX_EVENTS
    assert reader.passed_over == 500


@pytest.mark.parametrize("form", OUTPUT_FORMATS)
@given(data=st.lists(st.binary(max_size=200) | st.just(b'{"type":"assistant","message":1}\n')))
@settings(max_examples=30)
def test_no_bytes_break_a_reader(form: Any, data: list[bytes]) -> None:
    reader = Reader(form)
    for part in data:
        reader.feed(part)
    reader.end()


KINDS = ("assistant", "result", "item.started", "item.completed", "turn.completed", "text", "error",
         "tool_use", "step_finish", "message", "turn.failed")  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
            ["message", "content", "type", "item", "usage", "part", "tokens", "error", "data",
             "state", "input", "text", "cost"]), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("form", OUTPUT_FORMATS)
@given(
    kind=st.sampled_from(KINDS),
    rest=st.dictionaries(
        st.sampled_from(
            ["message", "item", "part", "usage", "error", "stats", "result", "total_cost_usd"]
        ),
        JSON,
    ),
)
@settings(max_examples=50)
def test_no_shape_of_a_message_breaks_a_reader(form: Any, kind: str, rest: Any) -> None:
    for event in read(form, {"type": kind, **rest}):
        assert isinstance(event, OutputEvent)
