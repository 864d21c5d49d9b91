"""Mask patterns: which files of the workspace the sandbox does not see.

The patterns are gitignore's (gitignore(5)), with one difference that keeps the outcome easy to
tell: the last pattern that matches a path decides, so `!name` shows a file again even where its
folder is masked. Adding a pattern without `!` can therefore never show more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from ..errors import ConfigError
from .text import has_control, is_unicode, printable


def check_pattern(pattern: str) -> str:
    """`pattern` itself when it can match something; ConfigError when it is none."""
    import pathspec

    shown = f"“{printable(pattern, 80)}”"
    if has_control(pattern) or not is_unicode(pattern):
        raise ConfigError(f"the mask {shown} has a control character or is not UTF-8.")
    usable = False
    # A pattern without a name is one that gitignore takes to match nothing; a mask that silently
    # hides nothing would be the worst outcome here.
    if pattern.removeprefix("!").strip(" /") and not pattern.startswith("#"):
        try:
            compiled = list(pathspec.PathSpec.from_lines("gitignore", [pattern]).patterns)
            usable = bool(compiled) and compiled[0].include is not None
        except ValueError:
            usable = False
    if not usable:
        raise ConfigError(
            f"the mask {shown} is not a pattern that matches anything.",
            hint="Write it as in a .gitignore file: .env, secrets/, *.pem.",
        )
    return pattern


def matcher(patterns: Sequence[str]) -> Callable[[str, bool], bool]:
    """A function that tells whether (path relative to the workspace, is a folder) is masked."""
    if not patterns:
        return lambda _path, _folder: False
    import pathspec

    compiled = pathspec.PathSpec.from_lines("gitignore", patterns)

    def masked(path: str, folder: bool) -> bool:
        return compiled.match_file(path.strip("/") + ("/" if folder else ""))

    return masked


def rebase(patterns: Iterable[str], below: str) -> tuple[str, ...]:
    """`patterns` of a folder, as they read from its subfolder `below` (relative, "" for itself).

    A corral.toml found further up says `sub/.env`; for a workspace that is `sub` this is `/.env`.
    Patterns that cannot match anything below are dropped.
    """
    parts = [part for part in below.split("/") if part]
    if not parts:
        return tuple(patterns)
    result: list[str] = []
    for pattern in patterns:
        sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
        if "/" not in body.rstrip("/"):
            result.append(pattern)  # applies at any depth, so it reads the same from below
            continue
        tail = "/" if body.endswith("/") else ""
        segments = [segment for segment in body.split("/") if segment]
        for rest in dict.fromkeys(_descend(tuple(segments), tuple(parts))):
            result.append(f"{sign}/{'/'.join(rest)}{tail}")
    return tuple(result)


def _descend(pattern: tuple[str, ...], parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What is left of `pattern` after walking into `parts`; several ways where it has `**`."""
    if not pattern:
        return []
    if not parts:
        return [pattern]
    if pattern[0] == "**":
        return _descend(pattern[1:], parts) + _descend(pattern, parts[1:])
    return _descend(pattern[1:], parts[1:]) if fnmatchcase(parts[0], pattern[0]) else []
