"""Events in the log of a kept sandbox, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from corral.cli import narration
from corral.events import AgentBecame, Connection, Event


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"verdict": "denied", "reason": "not on the list"},
            "connection to a.test:443 denied: not on the list",
        ),
        ({"verdict": "allowed", "rule": "*.test"}, "connection to a.test:443 allowed: by *.test"),
        (
            {"verdict": "allowed", "seconds": 1.25, "sent": 10, "received": 2000},
            "connection to a.test:443 ended after 1.2 s, sent 10 bytes, received 2000",
        ),
        (
            {"verdict": "denied", "name": "a\x1b[2Jb", "reason": "not a host name"},
            r"connection to a\x1b[2Jb:443 denied: not a host name",
        ),
    ],
)
def test_a_connection_is_told_in_words(changes: dict[str, object], words: str) -> None:
    event = Connection(**{"time": 1.0, "agent": 1, "name": "a.test", "port": 443, **changes})  # type: ignore[arg-type]
    assert narration.line(msgspec.to_builtins(event)).partition("  ")[2] == words


def kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def an_event(kind: type[Event]) -> dict[str, Any]:
    """One of it, as it is in the log."""
    plain: dict[str, Any] = {"str": "word", "str | None": "word", "tuple[str, ...]": ("word",)}
    plain |= {"bytes": b"data", "int": 7, "float": 1.5}
    required = {
        field.name: plain[str(kind.__annotations__[field.name])]
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    told = msgspec.to_builtins(kind(**required))
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_kind_of_event_is_told_in_words(kind: type[Event]) -> None:
    event = an_event(kind)
    told = narration.line(event).partition("  ")[2]
    assert told not in ("", event["event"]), "the bare word says nothing"
    assert any(shown in told for shown in ("word", "7", "1.5", "state"))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (AgentBecame(agent=2, state="idle"), "agent 2 is idle"),
        (
            AgentBecame(agent=3, state="stuck", reason="no heartbeat\nfor 30 s"),
            r"agent 3 is stuck: no heartbeat\nfor 30 s",
        ),
    ],
)
def test_how_an_agent_is_is_told_with_the_reason(event: AgentBecame, words: str) -> None:
    assert narration.line(msgspec.to_builtins(event)).partition("  ")[2] == words
