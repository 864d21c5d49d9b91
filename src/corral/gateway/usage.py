"""Tokens of a request, as each dialect tells them. Pure.

Anthropic: input_tokens are those neither read from a cache nor written to one. OpenAI:
prompt_tokens (input_tokens) has those read from the cache in it. Here they never overlap.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

_MOST = 1 << 40  # tokens; more is no number of tokens


class Usage(Struct, frozen=True, kw_only=True):
    """input, output: tokens. cache_*: read from the provider's cache, and written to it, to stay
    for five minutes or an hour. searches: of the web, by the provider. reported: US dollars, where
    the provider tells them. estimated: the answer was cut off before it told the rest."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_hour: int = 0
    searches: int = 0
    reported: float | None = None
    estimated: bool = False

    @property
    def all_input(self) -> int:
        """Every token that went in."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_hour


def anthropic(said: dict[str, Any], before: Usage) -> Usage:
    """What a `usage` says, and what an earlier one of the same answer said of the rest."""
    found: dict[str, int] = {}
    for key, name in (
        ("input_tokens", "input"),
        ("output_tokens", "output"),
        ("cache_read_input_tokens", "cache_read"),
    ):
        if (count := number(said.get(key))) is not None:
            found[name] = count
    written = number(said.get("cache_creation_input_tokens"))
    if written is not None:
        detail = said.get("cache_creation")
        hour = None
        if isinstance(detail, dict):
            hour = number(detail.get("ephemeral_1h_input_tokens"))
        hour = min(hour or 0, written)
        found |= {"cache_write": written - hour, "cache_write_hour": hour}
    tools = said.get("server_tool_use")
    if isinstance(tools, dict) and (count := number(tools.get("web_search_requests"))) is not None:
        found["searches"] = count
    return replace(before, **found)


def openai(said: dict[str, Any]) -> Usage:
    """What a `usage` says, of chat completions, responses, completions and embeddings alike."""
    taken = number(said.get("prompt_tokens", said.get("input_tokens"))) or 0
    given = number(said.get("completion_tokens", said.get("output_tokens"))) or 0
    detail = said.get("prompt_tokens_details", said.get("input_tokens_details"))
    cached = number(detail.get("cached_tokens")) if isinstance(detail, dict) else None
    cached = min(cached or 0, taken)
    cost = said.get("cost")  # OpenRouter's, in US dollars
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < _MOST
    return Usage(
        input=taken - cached,
        cache_read=cached,
        output=given,
        reported=float(cost) if known and cost is not None else None,
    )


def number(value: object) -> int | None:
    """A count, or None if this is none."""
    return value if type(value) is int and 0 <= value < _MOST else None
