"""--import-settings: the user's own settings of an agent, copied into its home once.

Only what the recipe's list names, and of that nothing that looks like a credential; no link is
followed below the agent's own folder. What was copied and what was left out is said.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from ..errors import HostError
from ..events import Notice, Report
from ..spec.credentials import is_credential, suspect
from ..spec.text import printable
from . import beneath
from .homes import IMPORTED, Home
from .model import Recipe
from .validate import place_of

MAX_FILE = 16 << 20  # bytes
MAX_FILES, MAX_BYTES, MAX_DEPTH = 5000, 256 << 20, 12
_WINDOW, _OVERLAP = 16 << 10, 4 << 10  # characters; is_credential looks at the first 16 Ki
_SHOWN = 8  # names in a message
_ASSIGNED = re.compile(
    r"""["']?([A-Za-z_][A-Za-z0-9_.-]{1,60})["']?\s{0,20}[:=]\s{0,20}["']?([^"'\s,}]{8,4096})"""
)
_PROJECT = "{project}"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Outcome(Struct):
    """What was copied, and what was not: (path, why)."""

    copied: list[str]
    left: list[tuple[str, str]]


def import_settings(
    recipe: Recipe,
    home: Home,
    workspace: str,
    inside: str,
    environ: Mapping[str, str],
    report: Report,
) -> None:
    """Do it, if it was not done before, and say what was done. Raises HostError.

    inside: where the agent finds the workspace, which is what it knows its history by.
    """
    marker = home.folder / IMPORTED
    if marker.exists():
        message = f"the settings of {recipe.name} were imported before; nothing is copied again."
        report(Notice(level="info", message=message))
        return
    outcome = copy_settings(recipe, home, workspace, environ, inside=inside)
    try:
        marker.write_text("", "utf-8")
    except OSError as error:
        raise HostError(f"{marker} cannot be written: {error.strerror}.") from error
    for message in told(recipe.name, outcome):
        report(Notice(level="info", message=message))


def copy_settings(
    recipe: Recipe,
    home: Home,
    workspace: str,
    environ: Mapping[str, str],
    *,
    inside: str | None = None,
) -> Outcome:
    """Copy; what is in the home already stays as it is. inside: see `import_settings`."""
    outcome = Outcome(copied=[], left=[])
    project, there = _hyphenated(workspace), _hyphenated(inside or workspace)
    copy = [pattern.replace(_PROJECT, project) for pattern in recipe.table.import_.copy]
    leave = [_compiled(pattern) for pattern in recipe.table.import_.leave]
    history = {new for new, old in zip(copy, recipe.table.import_.copy, strict=True) if new != old}
    total = 0
    for pattern, written in zip(copy, recipe.table.import_.copy, strict=True):
        before, named, _rest = written.partition(_PROJECT)
        place = place_of(pattern, recipe.table.state)
        assert place is not None  # validated
        source = _source(place, recipe, environ)
        wanted = _compiled(pattern)
        for path, folder, name in _files(source, place, _fixed(pattern, place), outcome):
            if not wanted.fullmatch(path) or any(each.fullmatch(path) for each in leave):
                continue
            if len(outcome.copied) >= MAX_FILES or total > MAX_BYTES:
                outcome.left.append((path, "there are too many"))
                return outcome
            target = path
            if named and path.startswith(before + project):
                target = before + there + path.removeprefix(before + project)
            strict = pattern not in history
            total += _copy(home, target, (path, folder, name), outcome, strict=strict)
    return outcome


def told(agent: str, outcome: Outcome) -> Iterator[str]:
    """What to say of it."""
    if outcome.copied:
        yield f"imported for {agent}: {_listed(outcome.copied)}."
    else:
        yield f"there is nothing of yours for {agent} to import."
    reasons: dict[str, list[str]] = {}
    for path, why in outcome.left:
        reasons.setdefault(why, []).append(path)
    for why, paths in reasons.items():
        yield f"left out, as {why}: {_listed(paths)}."


def credential_in(text: str, *, strict: bool) -> str | None:
    """What a text holds that looks like a credential, in words; None for nothing.

    strict: names of settings count, too ("apiKey"), as in a file of settings.
    """
    for start in range(0, max(len(text), 1), _WINDOW - _OVERLAP):
        if is_credential(text[start : start + _WINDOW]):
            return "they hold what looks like a credential"
    if strict:
        for name, value in _ASSIGNED.findall(text):
            if suspect(_CAMEL.sub("_", name).replace("-", "_"), value) is not None:
                return "they hold what looks like a credential"
    return None


def _hyphenated(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", path)


def _copy(
    home: Home, target: str, source: tuple[str, int, str], outcome: Outcome, *, strict: bool
) -> int:
    """Copy one file, see `_files`; returns its bytes, 0 where it was left out."""
    path, folder, name = source
    try:
        content = beneath.read_file(folder, name, MAX_FILE)
    except OSError as error:
        outcome.left.append((path, f"they cannot be read ({error.strerror})"))
        return 0
    if content is None:
        outcome.left.append((path, "they are links, too large, or no files"))
        return 0
    try:
        why = credential_in(content.decode("utf-8"), strict=strict)
    except UnicodeDecodeError:
        why = "they are no text"
    if why is not None:
        outcome.left.append((path, why))
        return 0
    *folders, last = target.removeprefix("~/").split("/")
    try:
        with beneath.opened(home.root, folders, make=True) as there:
            beneath.write_new(there, last, content)
    except FileExistsError:
        outcome.left.append((path, "they are in its home already"))
        return 0
    except (beneath.LinkedError, OSError):
        outcome.left.append((path, "a link or a file is in their way"))
        return 0
    outcome.copied.append(path)
    return len(content)


def _files(
    source: str, place: str, fixed: tuple[str, ...], outcome: Outcome
) -> Iterator[tuple[str, int, str]]:
    """(path as the guest names it, an open folder, name) of what is below the fixed part."""
    try:
        with beneath.opened(source, fixed[:-1]) as folder:
            yield from _walk(folder, "/".join((place, *fixed[:-1])), fixed[-1:], outcome, 0)
    except beneath.LinkedError as error:
        outcome.left.append((f"{place}/{error.path}", "they are links, too large, or no files"))
    except OSError:
        return  # there is none


def _walk(
    folder: int, path: str, only: tuple[str, ...], outcome: Outcome, depth: int
) -> Iterator[tuple[str, int, str]]:
    names = only or tuple(sorted(os.listdir(folder)))
    for name in names[:MAX_FILES]:
        try:
            mode = os.lstat(name, dir_fd=folder).st_mode
        except OSError:
            continue
        if not stat.S_ISDIR(mode):
            yield f"{path}/{name}", folder, name
        elif depth < MAX_DEPTH:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                below = os.open(name, flags, dir_fd=folder)
            except OSError:
                outcome.left.append((f"{path}/{name}", "they cannot be read"))
                continue
            try:
                yield from _walk(below, f"{path}/{name}", (), outcome, depth + 1)
            finally:
                os.close(below)


def _source(place: str, recipe: Recipe, environ: Mapping[str, str]) -> str:
    """The user's own folder: where a variable of the agent's says, else where it usually is."""
    for name, value in recipe.table.env.items():
        if value == place and (own := environ.get(name, "")).startswith("/"):
            return own
    return str(Path(environ.get("HOME", "/"), place.removeprefix("~/")))


def _fixed(pattern: str, place: str) -> tuple[str, ...]:
    """The parts of a pattern below its place, up to the first with a star."""
    fixed = []
    for part in pattern.removeprefix(f"{place}/").split("/"):
        if "*" in part:
            break
        fixed.append(part)
    return tuple(fixed) or ("",)


def _compiled(pattern: str) -> re.Pattern[str]:
    """** is anything, * anything without a slash."""
    parts = re.split(r"(\*\*|\*)", pattern)
    words = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _listed(paths: list[str]) -> str:
    shown = ", ".join(printable(path, 120) for path in paths[:_SHOWN])
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
