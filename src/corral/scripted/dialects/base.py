"""What the dialects share."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..model import Reply, results


class Dialect(abc.ABC):
    """How one interface says what a reply holds. asked: the request's body."""

    def error(self, message: str) -> dict[str, Any]:
        """An error."""
        return {"error": {"message": message, "type": "scripted", "param": None, "code": None}}

    @abc.abstractmethod
    def whole(self, asked: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        """An answer that is not streamed."""

    @abc.abstractmethod
    def events(self, asked: Mapping[str, Any], reply: Reply) -> list[bytes]:
        """One that is: its server-sent events."""


def event(said: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event; name: where the dialect names them."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(said)}\n\n".encode()


def words(text: str) -> list[str]:
    """A text in the pieces in which it is streamed."""
    *first, last = text.split(" ")
    return [word + " " for word in first] + [last]


def numbered(
    asked: Mapping[str, Any], reply: Reply
) -> Iterator[tuple[int, tuple[str, Mapping[str, object] | str]]]:
    """The calls of a reply, with numbers that none in the conversation so far has."""
    return enumerate(reply.tools, len(results(asked)))
