"""Claude Code's --output-format stream-json (code.claude.com/docs, "Headless mode")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .events import OutputEvent, Returned, Said, Used, called, count, dollars, parts, table, text_of


def parse(line: Mapping[str, object]) -> Iterator[OutputEvent]:
    """The events of one line."""
    match line.get("type"):
        case "assistant":
            for part in parts(table(line.get("message")).get("content")):
                if part.get("type") == "text":
                    yield Said.of(text_of(part.get("text")))
                elif part.get("type") == "tool_use":
                    yield called(part.get("name"), part.get("input"))
        case "result":
            usage = table(line.get("usage"))
            yield Used(
                input_tokens=count(usage.get("input_tokens"))
                + count(usage.get("cache_creation_input_tokens")),
                output_tokens=count(usage.get("output_tokens")),
                cached_tokens=count(usage.get("cache_read_input_tokens")),
                cost_usd=dollars(line.get("total_cost_usd")),
            )
            ok = line.get("is_error") is False and line.get("subtype") == "success"
            yield Returned(ok=ok, text=text_of(line.get("result")))
