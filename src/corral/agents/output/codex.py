"""`codex exec --json` (developers.openai.com/codex, "Non-interactive mode")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .events import OutputEvent, Returned, Said, Used, called, count, table, text_of


def parse(line: Mapping[str, object]) -> Iterator[OutputEvent]:
    """The events of one line."""
    item = table(line.get("item"))
    match line.get("type"):
        case "item.started":
            yield from _started(item)
        case "item.completed":
            yield from _completed(item)
        case "turn.completed":
            usage = table(line.get("usage"))
            cached = count(usage.get("cached_input_tokens"))
            yield Used(
                input_tokens=max(count(usage.get("input_tokens")) - cached, 0),
                output_tokens=count(usage.get("output_tokens")),
                cached_tokens=cached,
            )
            yield Returned(ok=True)
        case "turn.failed":
            yield Returned(ok=False, text=text_of(table(line.get("error")).get("message")))
        case "error":
            yield Returned(ok=False, text=text_of(line.get("message")))


def _started(item: Mapping[str, object]) -> Iterator[OutputEvent]:
    match item.get("type"):
        case "command_execution":
            yield called("command_execution", text_of(item.get("command")))
        case "mcp_tool_call":
            yield called(item.get("tool"), item.get("arguments"))


def _completed(item: Mapping[str, object]) -> Iterator[OutputEvent]:
    match item.get("type"):
        case "agent_message":
            yield Said.of(text_of(item.get("text")))
        case "file_change":
            yield called("file_change", item.get("changes"))
        case "web_search":
            yield called("web_search", text_of(item.get("query")))
