"""Connections in the log of a kept sandbox, in words."""

from __future__ import annotations

import msgspec
import pytest

from corral.cli import narration
from corral.events import Connection


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
