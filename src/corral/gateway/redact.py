"""Takes credentials out of what goes back, also where they lie across the border of two pieces.

A credential is overwritten with asterisks, so that lengths stay what they were announced to be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

SHORTEST = 8  # characters; what is shorter is a dummy ("ollama", "none") and in every other word


def spellings(secret: str) -> set[bytes]:
    """How a credential may be written in a header, a URL or JSON."""
    as_json = json.dumps(secret)[1:-1]
    found = {secret, as_json, as_json.replace("/", "\\/"), quote(secret, safe="")}
    return {text.encode() for text in found}


class Secrets:
    """The credentials to look for, as one pattern."""

    def __init__(self, secrets: Iterable[str]) -> None:
        words = {word for text in secrets if len(text) >= SHORTEST for word in spellings(text)}
        # Longer ones first, so that none is left half.
        ordered = sorted(words, key=lambda word: (-len(word), word))
        self._whole = re.compile(b"|".join(map(re.escape, ordered))) if words else None
        # By their last byte, the proper beginnings of words, longer ones first.
        self._begun: dict[int, list[bytes]] = {}
        beginnings = {word[:length] for word in words for length in range(1, len(word))}
        for beginning in sorted(beginnings, key=len, reverse=True):
            self._begun.setdefault(beginning[-1], []).append(beginning)

    def clean(self, data: bytes) -> bytes:
        """Data that is whole, without credentials."""
        if self._whole is None:
            return data
        return self._whole.sub(lambda match: b"*" * len(match[0]), data)

    def clean_text(self, text: str) -> str:
        """The same for text, a header's value say."""
        return self.clean(text.encode("utf-8", "surrogateescape")).decode(
            "utf-8", "surrogateescape"
        )

    def begun(self, data: bytes) -> int:
        """How many bytes at the end of data could be the beginning of a credential."""
        for beginning in self._begun.get(data[-1], ()) if data else ():
            if data.endswith(beginning):
                return len(beginning)
        return 0


class Redactor:
    """Cleans a stream: `feed` each piece, then `end`.

    Only bytes that may be the beginning of a credential are held back until the next piece.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on now."""
        data = self._secrets.clean(self._held + data)
        begun = self._secrets.begun(data)
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def end(self) -> bytes:
        """The rest."""
        rest, self._held = self._held, b""
        return rest
