"""What is no task is told in plain words; nothing else comes of any input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import CorralError, TaskError
from corral.tasks.model import CancelMessage, ExecuteCode, Named, Prompt, Run, TaskMessage
from corral.tasks.output import Collector, Pieces, shown
from corral.tasks.parse import line, task, what


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "a task is an object; this is a list"),
        ("run", "this is no object"),
        ({}, "the task has no “action”"),
        ({"action": 3}, "the task has no “action”"),
        ({"action": "Rm -rf"}, "is not a name for an action"),
        ({"action": "run"}, "the task run: “argv” is missing"),
        ({"action": "run", "argv": "ls"}, "argv: expected a list, not text"),
        ({"action": "run", "argv": []}, "argv: expected `array` of length >= 1"),
        ({"action": "run", "argv": [""]}, "the program, is empty"),
        ({"action": "run", "argv": ["a", 3]}, "expected text, not a whole number"),
        ({"action": "run", "argv": ["a"], "shell": True}, "“shell” is not known"),
        ({"action": "run", "argv": ["a\0"]}, "NUL"),
        ({"action": "run", "argv": ["a"], "timeout_ms": 0}, "timeout_ms"),
        ({"action": "run", "argv": ["a"], "timeout_ms": "5s"}, "expected a whole number, not text"),
        ({"action": "run", "argv": ["a"], "timeout_ms": 10**12}, "timeout_ms"),
        ({"action": "run", "argv": ["a"], "env": {"A=B": "x"}}, "env: "),
        ({"action": "run", "argv": ["a"], "env": {"A": "x\0"}}, "env: "),
        ({"action": "run", "argv": ["a"], "cwd": "\x1b"}, "cwd has a control character"),
        ({"action": "run", "argv": ["\ud800"]}, "not Unicode"),
        ({"action": "run", "argv": ["x" * 100_000]}, "longer than 96 KiB"),
        ({"action": "run", "argv": ["é" * 50_000]}, "longer than 96 KiB"),
        ({"action": "run", "argv": ["x" * 90_000] * 6}, "at most 512"),
        ({"action": "run", "argv": ["a"], "stdin": "x" * 600_000}, "at most 512"),
        ({"action": "execute_code", "language": "python"}, "“code” is missing"),
        ({"action": "prompt", "prompt": ""}, "prompt: "),
        ({"action": "test", "argv": ["x"]}, "“argv” is not known"),
    ],
)
def test_what_is_wrong_is_said(fields: Any, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        task(fields)
    assert said in caught.value.message
    assert caught.value.message.isprintable()


def test_each_kind_is_read() -> None:
    assert task({"action": "run", "argv": ["ls"], "timeout_ms": 5}) == Run(
        argv=("ls",), timeout_ms=5
    )
    code = {"action": "execute_code", "language": "python", "code": "x"}
    assert task(code) == ExecuteCode(language="python", code="x")
    assert task({"action": "prompt", "prompt": "do"}) == Prompt(prompt="do")
    assert task({"action": "test", "args": ["-q"]}) == Named(action="test", args=("-q",))


def test_lines_are_messages_or_bare_tasks() -> None:
    bare = line('{"action": "test"}')
    assert isinstance(bare, TaskMessage) and bare.id is None and bare.task == {"action": "test"}
    full = line('{"type": "task", "id": "a-1", "agent": 2, "task": {"action": "x"}}')
    assert isinstance(full, TaskMessage) and (full.id, full.agent) == ("a-1", 2)
    assert line('{"type": "cancel", "id": "a-1"}') == CancelMessage(id="a-1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "this is a list"),
        ("{}", "the message: "),
        ('{"type": "task"}', "“task” is missing"),
        ('{"type": "result", "id": "x"}', "not one of those that are known"),
        ('{"type": "task", "id": "../x", "task": {}}', "cannot be a task's id"),
        ('{"type": "task", "agent": 0, "task": {}}', "there is no agent 0"),
        ("[" * 100_000, "nested too deeply"),
        ("x" * 600_000, "longer than 512 KiB"),
        (b"\xff\xfe{}", "not JSON"),
    ],
)
def test_a_line_that_is_none_is_told(text: str | bytes, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        line(text)
    assert said in caught.value.message
    assert caught.value.message.isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_KEYS = ("action", "argv", "code", "language", "env", "cwd", "stdin", "timeout_ms", "args", "agent")


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a host that is busy
@given(
    fields=st.dictionaries(st.sampled_from(_KEYS), _JSON),
    action=st.sampled_from(["run", "execute_code", "prompt", "test", "\x1b", ""]),
)
def test_nothing_but_a_task_or_an_error_in_words_comes_of_any_value(
    fields: dict[str, Any], action: str
) -> None:
    try:
        found = task({**fields, "action": action})
    except CorralError as error:
        assert error.message.isprintable()
    else:
        assert what(found).isprintable()


@given(st.binary(max_size=200))
def test_nothing_but_a_message_or_an_error_comes_of_any_line(text: bytes) -> None:
    try:
        line(text)
    except TaskError as error:
        assert error.message.isprintable()


@given(st.lists(st.binary(max_size=40)), st.integers(2, 64).map(lambda n: n * 2))
def test_output_is_kept_in_bounds_and_nothing_of_it_drives_a_terminal(
    pieces: list[bytes], limit: int
) -> None:
    collector, following = Collector(limit), Pieces(limit)
    told = ""
    for piece in pieces:
        collector.feed(piece)
        told += "".join(following.feed(piece))
    told += "".join(following.feed(b"", final=True))
    whole = b"".join(pieces)
    assert collector.size == len(whole)
    assert collector.truncated == (len(whole) > limit)
    if not collector.truncated:
        assert collector.text() == shown(whole.decode("utf-8", "replace"))
    assert told == shown(whole[:limit].decode("utf-8", "replace"))
    for text in (collector.text(), told):
        assert all(character.isprintable() or character in "\n\t" for character in text)


def test_what_is_left_out_is_said_between_the_first_and_the_last() -> None:
    collector = Collector(8)
    for piece in (b"abcdef", b"ghij", b"klmnop"):
        collector.feed(piece)
    assert collector.text() == "abcd\n[8 bytes are left out]\nmnop"
    assert json.loads(json.dumps(collector.text())) == collector.text()


def test_a_task_in_short_is_one_printable_line() -> None:
    code = {"action": "execute_code", "language": "sh", "code": "echo \x1b[2J\n" * 99}
    short = what(task(code))
    assert short.isprintable() and len(short) <= 100 and short.startswith("sh: echo \\x1b[2J\\n")
