"""`corral transcript`: what a person sees of the records, and that it harms no terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from corral.cli.conversation import Conversation
from corral.cli.transcript import command
from corral.gateway.config import TRANSCRIPT
from corral.journal import older
from corral.sandbox.gateway import gateway_folder


def request(messages: list[Any], agent: int = 1, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": messages, **more}
    return {
        "kind": "request",
        "time": 0,
        "agent": agent,
        "gateway": "anthropic",
        "model": "claude-opus-5",
        "body": body,
    }


def response(body: Any, **more: Any) -> dict[str, Any]:
    return {
        "kind": "response",
        "agent": 1,
        "status": 200,
        "ended": "complete",
        "body": body,
        **more,
    }


def shown(*records: dict[str, Any]) -> list[str]:
    conversation = Conversation()
    lines = [line for record in records for line in conversation.lines(record)]
    return [click.unstyle(line).strip() for line in lines if line.strip()]


def test_a_conversation_shows_what_is_new_in_each_request() -> None:
    first: list[Any] = [{"role": "user", "content": "What is here?"}]
    call = {"type": "tool_use", "id": "1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a"}]}
    said = {"role": "assistant", "content": [call]}
    lines = shown(
        request(first, system="Be good.", tools=[{"name": "Bash"}]),
        response(
            {"content": [call]},
            seconds=1.5,
            usage={"input": 10, "cache_read": 5, "output": 3},
            cost_usd=0.01,
            spent_usd=0.5,
        ),
        request([*first, said, {"role": "user", "content": [result]}]),
        response({"content": [{"type": "text", "text": "One file."}]}, ended="cancelled"),
    )
    assert lines[1:5] == [
        "system: Be good.",
        "tools: Bash",
        "user: What is here?",
        'calls: Bash {"command": "ls"}',
    ]
    assert lines[5] == (
        "200  1.5 s  10 tokens in, 5 from cache, 3 out  0.0100 USD  0.50 USD in all"
    )
    assert lines[7:] == [  # the call itself was shown as the answer that it is
        "result: a",
        "assistant: One file.",
        "cancelled  200",
    ]


def test_conversations_that_take_turns_are_told_apart_and_cache_marks_do_not_count() -> None:
    def asked(text: str, *more: str) -> list[Any]:
        marked = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        first = [marked] if more else text
        return [{"role": "user", "content": first}, *({"role": "user", "content": m} for m in more)]

    lines = shown(
        request(asked("one"), system="S"),
        request(asked("other"), system="S"),
        request(asked("one", "two"), system="S"),
        request(asked("other", "more"), system="S"),
    )
    said = [line for line in lines if ": " in line]
    assert said == ["system: S", "user: one", "system: S", "user: other", "user: two", "user: more"]


def test_openais_two_ways_are_shown_the_same() -> None:
    call = {"id": "1", "function": {"name": "Bash", "arguments": '{"a": 1}'}}
    chat = response({"choices": [{"message": {"content": "Hi", "tool_calls": [call]}}]})
    streamed = response({"choices": [{"role": "assistant", "content": "Hi", "tool_calls": [call]}]})
    output = [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi"}],
        },
        {"type": "function_call", "name": "Bash", "arguments": '{"a": 1}'},
    ]
    expected = ["assistant: Hi", 'calls: Bash {"a": 1}', "200"]
    assert shown(chat) == shown(streamed) == shown(response({"output": output})) == expected
    asked = {"kind": "request", "body": {"input": "Hello", "instructions": "Be good."}}
    assert shown(asked)[1:] == ["system: Be good.", "user: Hello"]


def test_errors_and_refusals_are_shown() -> None:
    assert shown(response({"error": {"message": "overloaded"}}, status=529))[0] == (
        "error: overloaded"
    )
    refused = {"kind": "refused", "agent": 1, "gateway": None, "error": "corral: no."}
    assert shown(refused)[-1] == "refused: corral: no."


def test_a_long_text_is_cut() -> None:
    lines = shown(request([{"role": "user", "content": "word\n" * 5000}]))
    assert len(lines) < 20 and lines[-1].endswith("more characters")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.just("\x1b[2J\u202e"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("role", "content", "type", "text", "name", "input", "tool_calls", "function"),
                    *("choices", "output", "message", "error", "messages", "tools", "system"),
                ]
            ),
            inner | st.sampled_from(["tool_use", "tool_result", "text", "function_call", "tool"]),
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["request", "response", "refused"]), "body": JSON},
            optional={
                name: JSON
                for name in ("time", "agent", "gateway", "model", "error", "usage", "cost_usd")
            },
        ),
        max_size=4,
    )
)
def test_no_record_makes_it_fail_or_drives_a_terminal(records: list[dict[str, Any]]) -> None:
    for record in records:
        if isinstance(record.get("agent"), list | dict):
            record["agent"] = 1
        if isinstance(record.get("gateway"), list | dict):
            record["gateway"] = "a"
    for line in shown(*records):
        assert line.isprintable(), line


def test_the_command_reads_what_is_kept_and_picks_an_agent() -> None:
    folder = gateway_folder("some-sandbox")
    records = [request([{"role": "user", "content": f"I am {n}"}], agent=n) for n in (1, 2)]
    lines = [json.dumps({**record, "x": "\x9b31m"}, ensure_ascii=False) for record in records]
    (folder / TRANSCRIPT).write_text("\n".join([*lines, '{"cut off']) + "\n")
    runner = CliRunner()
    readable = runner.invoke(command, ["some-sandbox", "--agent", "2"])
    assert "I am 2" in readable.output and "I am 1" not in readable.output
    as_json = runner.invoke(command, ["some-sandbox", "--json"])
    assert as_json.output.isascii(), "U+009B is an escape sequence to some terminals"
    assert [json.loads(line)["agent"] for line in as_json.output.splitlines()] == [1, 2]


def test_a_sandbox_that_asked_no_model_is_an_error(tmp_path: Path) -> None:
    for name in ("never-was", "../x", str(tmp_path)):
        result = CliRunner().invoke(command, [name])
        assert "has asked a model" in str(result.exception)


def doing(moment: float, kind: str, agent: int = 1, **fields: Any) -> str:
    return json.dumps({"time": moment, "agent": agent, "kind": kind, **fields}) + "\n"


@pytest.fixture
def busy() -> str:
    """A sandbox with two agents and a gateway; lines of one file are in order, files overlap."""
    asked = {**request([{"role": "user", "content": "Fix it."}], agent=1), "time": 20.5}
    answered = {**response({"content": "Done."}), "time": 30.5}
    folder = gateway_folder("busy")
    (folder / TRANSCRIPT).write_text(json.dumps(asked) + "\n" + json.dumps(answered) + "\n")
    logs = folder.parent
    (logs / "agent-1.jsonl.1").write_text(
        doing(10, "started", command=1, argv=["claude", "-p", "fix it"], session="main")
    )
    (logs / "agent-1.jsonl").write_text(
        doing(20, "output", command=1, text="\x1b[2;3HThink\x1b[31ming\x1b[0m\r\n\x9b31mred\r\n")
        + doing(25, "task", task="t1", state="ended", status="failed", seconds=2.5)
        + doing(26, "files", task="t1", added=["a"], modified=["b\x1b[2J"], deleted=[])
        + doing(40, "ended", command=1, session="main", status=3, seconds=30)
        + '{"cut off'
    )
    (logs / "agent-2.jsonl").write_text(doing(22, "agent", agent=2, state="stuck", reason="why"))
    return "busy"


def kinds_of(*arguments: str) -> list[str]:
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line)["kind"] for line in result.output.splitlines()]


def test_all_that_agents_did_is_shown_in_the_order_of_time(busy: str) -> None:
    assert kinds_of(busy) == [
        *("started", "output", "request", "agent", "task", "files", "response", "ended")
    ]
    assert kinds_of(busy, "--agent", "2") == ["agent"]
    assert kinds_of(busy, "--kind", "model") == ["request", "response"]
    assert kinds_of(busy, "--kind", "command", "--kind", "files") == ["started", "files", "ended"]


def test_what_agents_did_is_readable_and_drives_no_terminal(busy: str) -> None:
    output = CliRunner().invoke(command, [busy]).output
    lines = [line.strip() for line in output.splitlines()]
    assert all(line.isprintable() for line in lines)
    assert any(line.endswith("command 1 (session main): claude -p 'fix it'") for line in lines)
    assert "Thinking" in lines and "user: Fix it." in lines and "added: a" in lines
    assert any(line.endswith("agent 2  is stuck: why") for line in lines)
    assert any(line.endswith("task t1 failed after 2.5 s") for line in lines)
    assert any("ended with status 3 after 30.0 s" in line for line in lines)


def test_what_comes_is_followed_in_files_that_turn_and_that_are_new(busy: str) -> None:
    folder = gateway_folder(busy).parent
    with subprocess.Popen(
        [sys.executable, "-m", "corral", "transcript", busy, "-f", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["kind"] for _ in range(8)]
        assert seen[-1] == "ended"
        first = folder / "agent-1.jsonl"
        first.rename(older(first))
        first.write_text(doing(50, "started", command=9, argv=["next"]))
        assert json.loads(process.stdout.readline())["command"] == 9
        (folder / "agent-3.jsonl").write_text(doing(60, "agent", agent=3, state="idle"))
        assert json.loads(process.stdout.readline())["agent"] == 3
        with (folder / "gateway" / TRANSCRIPT).open("a") as file:
            file.write(json.dumps({**response({}), "time": 70}) + "\n")
        assert json.loads(process.stdout.readline())["time"] == 70
        process.terminate()
