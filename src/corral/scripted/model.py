"""What a scripted model says, and what it was asked. Values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

Pace = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered with.

    tools: (name, input) of calls; the input of a tool that takes free text (responses only) is
    a string. status, error: an error in the dialect's form. headers: further
    ones. gzip: the answer is packed, whether that was asked for or not. usage: in place of the
    dialect's own. pace: awaited before each event, with its number. breaks: hang up after so many
    events. echo: the answer's text is the request, headers and all. redirect: to this address.
    """

    text: str = "Hello"
    tools: tuple[tuple[str, Mapping[str, object] | str], ...] = ()
    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip: bool = False
    usage: Mapping[str, object] | None = None
    pace: Pace | None = None
    breaks: int | None = None
    echo: bool = False
    redirect: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived.

    headers: by name in small letters. body: what its JSON holds, bytes where it is none, None where
    there is nothing.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any

    @property
    def asked(self) -> dict[str, object]:
        """The body's members; empty where it is no object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call tools: agents ask for titles and the like without."""
        asked = self.asked
        return bool(asked.get("tools")) or any(map(_has_tools, _parts(asked.get("input"))))

    @property
    def results(self) -> tuple[str, ...]:
        """What tools answered, in order, as far as it is text; in whichever dialect."""
        return results(self.asked)


def results(asked: Mapping[str, object]) -> tuple[str, ...]:
    """The results of calls in the conversation that a body holds."""
    parts = chain(_parts(asked.get("messages")), _parts(asked.get("input")))
    return tuple(
        _text(part.get("output", part.get("content"))) for part in parts if _is_result(part)
    )


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(_text(each.get("text")) for each in content if isinstance(each, dict))
    return content if isinstance(content, str) else ""


def _parts(messages: object) -> Iterator[Mapping[str, object]]:
    """Messages, and the parts of which they are made."""
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield message
            if not _is_result(message):
                yield from _parts(message.get("content"))


def _has_tools(part: Mapping[str, object]) -> bool:
    """Codex offers tools within the conversation, too."""
    return part.get("type") == "additional_tools"


def _is_result(part: Mapping[str, object]) -> bool:
    """Anthropic's tool_result; the role `tool` of chats; function_call_output and its like."""
    kind = part.get("type")
    return (
        kind == "tool_result"
        or part.get("role") == "tool"
        or (isinstance(kind, str) and kind.endswith("_call_output"))
    )
