"""What agents' output is made of, and the careful taking apart of what a guest wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

MAX_TEXT = 64 << 10
"""Characters of a text in an event; the rest is cut off."""
MAX_PARTS = 256
"""Parts of one message that are looked at."""
_MAX_NUMBER = 10**12


class OutputEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all; `kind` in JSON is the class's name in lower case."""


class Said(OutputEvent, frozen=True, kw_only=True, tag="said"):
    """The agent said something. cut: whether text is only its beginning."""

    text: str
    cut: bool = False

    @classmethod
    def of(cls, text: str) -> Said:
        """With its text cut to what is kept."""
        return cls(text=text[:MAX_TEXT], cut=len(text) > MAX_TEXT)


class Called(OutputEvent, frozen=True, kw_only=True, tag="called"):
    """The agent used a tool. arguments: as JSON or text, cut to what is kept."""

    tool: str
    arguments: str


class Returned(OutputEvent, frozen=True, kw_only=True, tag="returned"):
    """The agent's own end: its result, and whether it counts it as a success."""

    ok: bool
    text: str = ""


class Used(OutputEvent, frozen=True, kw_only=True, tag="used"):
    """What the agent says it has used: tokens, US dollars (None: it does not say)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None


def text_of(value: object) -> str:
    """A text, cut; "" for anything else."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def table(value: object) -> Mapping[str, object]:
    """An object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def parts(value: object) -> Iterator[Mapping[str, object]]:
    """The objects of a list."""
    for each in value[:MAX_PARTS] if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield each


def count(value: object) -> int:
    """A number of tokens; 0 for what cannot be one."""
    return value if type(value) is int and 0 <= value <= _MAX_NUMBER else 0


def dollars(value: object) -> float | None:
    """An amount; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < _MAX_NUMBER else None


def called(tool: object, arguments: object) -> Called:
    """A tool call with its arguments as text."""
    if isinstance(arguments, str):
        shown = arguments
    else:
        shown = msgspec.json.encode(arguments).decode("utf-8", "replace")
    return Called(tool=text_of(tool)[:200], arguments=shown[:MAX_TEXT])
