"""`opencode run --format json` (opencode.ai/docs, "CLI")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .events import OutputEvent, Returned, Said, Used, called, count, dollars, table, text_of


def parse(line: Mapping[str, object]) -> Iterator[OutputEvent]:
    """The events of one line."""
    part = table(line.get("part"))
    match line.get("type"):
        case "text":
            yield Said.of(text_of(part.get("text")))
        case "tool_use":
            yield called(part.get("tool"), table(part.get("state")).get("input"))
        case "step_finish":
            tokens = table(part.get("tokens"))
            yield Used(
                input_tokens=count(tokens.get("input")),
                output_tokens=count(tokens.get("output")) + count(tokens.get("reasoning")),
                cached_tokens=count(table(tokens.get("cache")).get("read")),
                cost_usd=dollars(part.get("cost")),
            )
            if part.get("reason") == "stop":
                yield Returned(ok=True)
        case "error":
            error = table(line.get("error"))
            told = table(error.get("data")).get("message") or error.get("name")
            yield Returned(ok=False, text=text_of(told))
