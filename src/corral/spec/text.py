"""Words in messages: what came from a file is shown escaped, and a typo gets its nearest name."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str, limit: int = 200) -> str:
    """`text` safe to print on a terminal: one line, no control or direction characters.

    A project's file is written by others; an escape sequence in one of its keys or values must
    not reach the terminal. Cut to `limit` characters.
    """
    shown = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def harmless(text: str) -> str:
    """`text` with nothing that drives a terminal: the last step before whatever may have been said
    in a guest is shown. Lines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` was most likely meant to be, or None.

    Of dotted names the last part counts first, so that a top-level `cpus` and a
    `workspace.cpus` both find `machine.cpus`.
    """
    import difflib

    candidates = list(known)
    prefix, _, last = word[:100].rpartition(".")
    for group in ([name for name in candidates if name.rpartition(".")[0] == prefix], candidates):
        by_last = {name.rpartition(".")[2]: name for name in reversed(group)}
        close = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.7)
        if close:
            return by_last[close[0]]
    whole = difflib.get_close_matches(word[:100], candidates, n=1, cutoff=0.7)
    return whole[0] if whole else None


def has_control(text: str) -> bool:
    """Whether `text` has a control character (below space, or DEL)."""
    return any(character < " " or character == "\x7f" for character in text)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: file names that are not become lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def toml_string(text: str) -> str:
    """`text` as a basic string of TOML 1.0, non-printing characters escaped."""
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    parts = []
    for character in text:
        if character in short:
            parts.append(short[character])
        elif character.isprintable():
            parts.append(character)
        else:
            parts.append(f"\\U{ord(character):08x}")
    return '"' + "".join(parts) + '"'


def toml_key(text: str) -> str:
    """`text` as a TOML key: bare where that is allowed, quoted otherwise."""
    bare = text and all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
    return text if bare else toml_string(text)
