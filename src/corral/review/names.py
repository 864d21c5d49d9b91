"""Names that are not what they look like. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_NAME = 200  # bytes of one name: a terminal, or a review, shows no longer one whole
# Scripts with letters that look like Latin ones, by how Unicode names their letters.
_LOOKALIKES = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "LISU", "COPTIC")


def is_git(path: str) -> bool:
    """Whether a path leads into a git folder, however a file system may fold its name."""
    return any(folded(part) in (".git", "git~1") for part in path.split("/"))


def folded(name: str) -> str:
    """A name as file systems that fold case, width and invisible characters see it."""
    if name.isascii():
        return name.lower().rstrip(". ")
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in text if unicodedata.category(c) != "Cf").rstrip(". ")


def hides(path: str) -> Iterator[str]:
    """Why a name may mislead who reads it; nothing for most."""
    for part in path.split("/"):
        if part.isascii() and part.isprintable() and "\\" not in part:
            if part != part.strip():
                yield "a name that begins or ends with a space"
            elif len(part) > MAX_NAME:
                yield "a name too long to be read"
            continue
        if any("\ud800" <= c <= "\udfff" for c in part):
            yield "a name that is no UTF-8"
        elif not part.isprintable():
            yield "a name with control or invisible characters"
        elif "\\" in part:
            yield "a name with a backslash"
        elif part != part.strip():
            yield "a name that begins or ends with a space"
        elif unicodedata.normalize("NFKC", part) != unicodedata.normalize("NFC", part):
            yield "a name with characters that look like others"
        elif _mixes(part):
            yield "a name that mixes alphabets that look alike"
        if len(part.encode("utf-8", "surrogateescape")) > MAX_NAME:
            yield "a name too long to be read"


def _mixes(part: str) -> bool:
    """Whether one word in it has Latin letters and ones that look like them."""
    for word in re.split(r"[\W\d_]+", part):
        letters = [unicodedata.name(c, "") for c in word]
        latin = any(name.startswith("LATIN") for name in letters)
        if latin and any(name.startswith(_LOOKALIKES) for name in letters):
            return True
    return False
