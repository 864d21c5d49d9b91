"""A transcript as a person reads it: who said what, which tools were called, what it cost.

Everything in it is a guest's or a model's: nothing reaches the terminal but as printable text.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import click

from ..spec.text import printable

_LINES, _CHARACTERS = 12, 1200  # of one text that are shown
_CONVERSATIONS = 16  # of one agent, whose messages are remembered
_TEXT = {"type", "text"}
_INDENT = "  "


class Conversation:
    """Records in, lines out. Of a request only what is new since the agent's earlier ones.

    An agent may have several conversations at once (with helpers of its own), so some are kept.
    """

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], deque[list[str]]] = {}

    def lines(self, record: dict[str, Any]) -> Iterator[str]:
        """What is shown of a record."""
        match record.get("kind"):
            case "request":
                yield ""
                yield click.style(_title(record), bold=True)
                yield from self._request(record)
            case "response":
                yield from _body(record.get("body"), record)
                yield click.style(_INDENT + ending(record), dim=True)
            case "refused":
                yield ""
                yield click.style(_title(record), bold=True)
                yield from _said("refused", record.get("error"))

    def _request(self, record: dict[str, Any]) -> Iterator[str]:
        body = record.get("body")
        if not isinstance(body, dict):
            return
        messages = _messages(body)
        whose = (str(record.get("agent")), str(record.get("gateway")))
        said = [_key(message) for message in messages]
        before = self._before.setdefault(whose, deque(maxlen=_CONVERSATIONS))
        known = max((_in_common(said, each) for each in before), default=0)
        before.append(said)
        if not known:
            for name in ("system", "instructions"):
                if body.get(name):
                    yield from _said("system", _text(body[name]))
            tools = body.get("tools")
            if isinstance(tools, list) and tools:
                yield from _said("tools", ", ".join(_tool_name(tool) for tool in tools))
        while known and known < len(messages) and _is_answer(messages[known]):
            known += 1  # it was shown as it came
        for message in messages[known:]:
            yield from _message(message)


def _key(message: Any) -> str:
    """What a message says, without the marks for the provider's cache, which wander."""
    if isinstance(message, dict) and isinstance(message.get("content"), list):
        content = [
            {name: value for name, value in block.items() if name != "cache_control"}
            if isinstance(block, dict)
            else block
            for block in message["content"]
        ]
        if len(content) == 1 and isinstance(content[0], dict) and set(content[0]) == _TEXT:
            content = content[0]["text"]  # the same, written in the shorter way
        message = {**message, "content": content}
    return sha256(json.dumps(message, sort_keys=True).encode("utf-8", "replace")).hexdigest()


def _in_common(one: list[str], other: list[str]) -> int:
    """How many messages at the beginning are the same."""
    length = 0
    for length, (ours, theirs) in enumerate(zip(one, other, strict=False), 1):
        if ours != theirs:
            return length - 1
    return length


def _is_answer(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    return message.get("role") == "assistant" or message.get("type") in (
        "function_call",
        "reasoning",
    )


def _messages(body: dict[str, Any]) -> list[Any]:
    """What is said in a request, of whichever dialect."""
    for name in ("messages", "input", "prompt"):
        value = body.get(name)
        if isinstance(value, list):
            return value
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
    return []


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return "?"
    function = tool.get("function")
    inner = function.get("name") if isinstance(function, dict) else None
    return str(tool.get("name") or inner or tool.get("type") or "?")


def _title(record: dict[str, Any]) -> str:
    moment = record.get("time")
    clock = ""
    if isinstance(moment, int | float) and 0 <= moment < 1 << 40:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    parts = [
        clock,
        f"agent {record.get('agent')}",
        str(record.get("gateway")),
        str(record.get("model") or f"{record.get('method')} {record.get('path')}"),
    ]
    return printable("  ".join(parts), 300)


def _body(body: Any, record: dict[str, Any]) -> Iterator[str]:
    """What an answer says."""
    if record.get("error"):
        yield from _said("refused", record["error"])
    if not isinstance(body, dict):
        return
    if body.get("error"):
        error = body["error"]
        yield from _said("error", error.get("message") if isinstance(error, dict) else error)
    choices, output = body.get("choices"), body.get("output")
    if isinstance(body.get("content"), list | str):
        yield from _message({"role": "assistant", "content": body["content"]})
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            said = choice.get("message")
            yield from _message(said if isinstance(said, dict) else choice)
    for item in output if isinstance(output, list) else ():
        yield from _message(item)


def _message(message: Any) -> Iterator[str]:
    """One message, or one item of OpenAI's responses."""
    if not isinstance(message, dict):
        yield from _said("user", message)
        return
    role = str(message.get("role") or "assistant")
    match message.get("type"):
        case "function_call":
            yield from _call(message.get("name"), message.get("arguments"))
            return
        case "function_call_output":
            yield from _said("result", _text(message.get("output")))
            return
        case "reasoning":
            yield from _said("thinking", _text(message.get("summary")))
            return
    if role == "tool":
        yield from _said("result", _text(message.get("content")))
        return
    for name in ("reasoning_content", "reasoning"):
        yield from _said("thinking", message.get(name))
    content = message.get("content")
    for block in content if isinstance(content, list) else [content]:
        yield from _block(role, block)
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from _call(function.get("name"), function.get("arguments"))


def _block(role: str, block: Any) -> Iterator[str]:
    if not isinstance(block, dict):
        yield from _said(role, block)
        return
    match block.get("type"):
        case "tool_use" | "server_tool_use":
            yield from _call(block.get("name"), block.get("input"))
        case "tool_result":
            failed = " (failed)" if block.get("is_error") is True else ""
            yield from _said(f"result{failed}", _text(block.get("content")))
        case "thinking":
            yield from _said("thinking", block.get("thinking"))
        case "text" | "input_text" | "output_text":
            yield from _said(role, block.get("text"))
        case kind:
            yield from _said(role, f"({kind})")


def _call(name: Any, arguments: Any) -> Iterator[str]:
    given = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    yield from _said("calls", f"{name} {given}")


def _text(value: Any) -> str:
    """The text in a list of blocks, or of whatever else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(
            str(part.get("text") or f"({part.get('type')})")
            if isinstance(part, dict)
            else str(part)
            for part in value
        )
    return "" if value is None else json.dumps(value, ensure_ascii=False)


_COLOURS = {"user": "green", "assistant": "cyan", "calls": "yellow", "result": "magenta"}


def _said(who: str, text: Any) -> Iterator[str]:
    """Some lines of a text, each safe for a terminal."""
    if text is None or text == "":
        return
    whole = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    lines = whole[:_CHARACTERS].strip("\n").split("\n")
    label = click.style(f"{printable(who, 40)}:", fg=_COLOURS.get(who))
    yield f"{_INDENT}{label} {printable(lines[0], _CHARACTERS)}"
    for line in lines[1:_LINES]:
        yield f"{_INDENT * 3}{printable(line, _CHARACTERS)}"
    rest = len(whole) - len("\n".join(lines[:_LINES]))
    if rest > 2:
        yield f"{_INDENT * 3}... {rest} more characters"


def ending(record: dict[str, Any]) -> str:
    """Status, time, tokens and money, in one line."""
    parts = []
    if record.get("ended") != "complete":
        parts.append(str(record.get("ended")))
    if record.get("status") is not None:
        parts.append(str(record["status"]))
    if isinstance(record.get("seconds"), int | float):
        parts.append(f"{record['seconds']:.1f} s")
    usage = record.get("usage")
    if isinstance(usage, dict):
        parts.append(_tokens(usage))
    cost = record.get("cost_usd")
    if isinstance(cost, int | float):
        assumed = " (price assumed)" if record.get("price") == "assumed" else ""
        parts.append(f"{cost:.4f} USD{assumed}")
    elif "cost_usd" in record:
        parts.append("price unknown")
    if isinstance(record.get("spent_usd"), int | float):
        parts.append(f"{record['spent_usd']:.2f} USD in all")
    return printable("  ".join(parts), 300)


def _tokens(usage: dict[str, Any]) -> str:
    def count(*names: str) -> int:
        values = (usage.get(name) for name in names)
        return sum(value for value in values if type(value) is int)

    parts = [f"{count('input')} tokens in"]
    if cached := count("cache_read"):
        parts.append(f"{cached} from cache")
    if written := count("cache_write", "cache_write_hour"):
        parts.append(f"{written} to cache")
    parts.append(f"{count('output')} out")
    return ", ".join(parts) + (" (estimated)" if usage.get("estimated") else "")
