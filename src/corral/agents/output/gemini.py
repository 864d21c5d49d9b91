"""`gemini --output-format stream-json` (geminicli.com/docs, "Headless mode")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .events import OutputEvent, Returned, Said, Used, called, count, table, text_of


def parse(line: Mapping[str, object]) -> Iterator[OutputEvent]:
    """The events of one line."""
    match line.get("type"):
        case "message":
            if line.get("role") == "assistant":
                yield Said.of(text_of(line.get("content")))
        case "tool_use":
            yield called(line.get("tool_name"), line.get("parameters"))
        case "result":
            stats = table(line.get("stats"))
            cached = count(stats.get("cached"))
            yield Used(
                input_tokens=max(count(stats.get("input_tokens")) - cached, 0),
                output_tokens=count(stats.get("output_tokens")),
                cached_tokens=cached,
            )
            error = text_of(table(line.get("error")).get("message"))
            yield Returned(ok=line.get("status") == "success", text=error)
