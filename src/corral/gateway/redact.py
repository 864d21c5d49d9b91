"""Takes credentials out of what goes back, also where they lie across the border of two pieces.

What is put in place of a credential is exactly as long, so that lengths stay what they were
announced to be. How much of a piece is held back until the next must not depend on the credential:
a sandbox that has a server repeat its guesses could else see from the delay, or from where a piece
ends, how much of a guess was right. So the characters at the end of a piece are held back that
could belong to any token at all. Text that ends in a space, a line's end, a quote or a bracket goes
on at once, and so does every whole event of a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote

SHORTEST = 8  # characters; what is shorter is a dummy ("ollama", "none") and in every other word
# RFC 6750, 2.1 (b64token), what else tokens are made of, and what JSON and URLs write them with.
TOKEN_CHARACTERS = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=%:@!$*#&?\\"
)
# Bytes for one of a credential, in the longest spelling: "\u00e9" in JSON, "%C3%A9" in a URL.
_MOST_SPELLED = 6


class Tail:
    """How much of the end of a piece is held back.

    Of what is looked for it tells no more than the length, and those of its characters that are in
    few tokens (a space or a quote, say).
    """

    def __init__(self) -> None:
        self._characters = TOKEN_CHARACTERS
        self._longest = 1

    def add(self, credential: bytes, spelled: Iterable[bytes]) -> None:
        """From now on hold back what could be the beginning of this, however it is spelled."""
        spelled = tuple(spelled)
        self._longest = max(self._longest, len(credential) * _MOST_SPELLED, *map(len, spelled))
        self._characters = bytes({*self._characters}.union(*spelled))

    def length(self, data: bytes, *, longest: int = 1) -> int:
        """How many bytes at the end of this could be the beginning of something looked for.

        longest: bytes of the longest thing that is made of the same characters and was not added.
        """
        longest = max(longest, self._longest)
        tail = data[-(longest - 1) :] if longest > 1 else b""
        return len(tail) - len(tail.rstrip(self._characters))


def spellings(secret: str) -> set[bytes]:
    """How a credential may be written in a header, a URL or JSON."""
    as_json = json.dumps(secret)[1:-1]
    found = {secret, as_json, as_json.replace("/", "\\/"), quote(secret, safe="")}
    return {text.encode() for text in found}


class Sought(Protocol):
    """What is looked for."""

    def clean(self, data: bytes, /) -> bytes:
        """The data with nothing in it of what lies in it whole; as long as it was."""

    def begun(self, data: bytes, /) -> int:
        """How many bytes at its end could be the beginning of something looked for."""


class Secrets:
    """The credentials to look for, as one pattern. They are overwritten with asterisks."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._tail = Tail()
        words: set[bytes] = set()
        for text in secrets:
            if len(text) >= SHORTEST:
                found = spellings(text)
                words |= found
                self._tail.add(text.encode(), found)
        # Longer ones first, so that none is left half.
        ordered = sorted(words, key=lambda word: (-len(word), word))
        self._whole = re.compile(b"|".join(map(re.escape, ordered))) if words else None

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
        return self._tail.length(data)


class Redactor:
    """Cleans a stream: `feed` each piece, then `end`."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on now, of what came now and before."""
        data = self._sought.clean(self._held + data)
        begun = self._sought.begun(data)
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def end(self) -> bytes:
        """The rest, at the end of the stream."""
        rest, self._held = self._held, b""
        return rest
