"""Which changes need a yes of their own, and why. Pure; what is looked for is in dangers.toml."""

from __future__ import annotations

from collections.abc import Iterator

from ..spec.text import printable
from .links import lead
from .manifests import parts
from .model import Change, Danger
from .names import hides, is_git
from .patch import Contents
from .rules import by_path, fold_path
from .surroundings import Surroundings


def dangers(change: Change, contents: Contents, beside: Surroundings) -> tuple[Danger, ...]:
    """Why a change needs a yes of its own; none for most."""
    reasons = list(_as(change.path, change, contents, beside))
    rules = {danger.rule for danger in reasons}
    for path in beside.reached_as(change.path):
        reasons += [
            Danger(rule=danger.rule, reason=f"{danger.reason}, as it is “{printable(path)}”, too")
            for danger in _as(path, change, contents, beside)
            if danger.rule not in rules
        ]
    reasons += _bits(change, beside)
    if change.old is None:
        reasons += [Danger(rule="name", reason=why) for why in dict.fromkeys(hides(change.path))]
        if beside.twins.get(fold_path(change.path), 0) > 1:
            why = "it has the name of another file where case does not count"
            reasons.append(Danger(rule="name", reason=why))
    return tuple(dict.fromkeys(reasons))


def _as(path: str, change: Change, contents: Contents, beside: Surroundings) -> Iterator[Danger]:
    """What says that a change is one of `path`, by which it is, or is reached."""
    yield from by_path(path)
    if is_git(path):
        if path == change.path:
            yield Danger(
                rule="repository", reason="it is part of a git repository, which git obeys"
            )
    elif beside.in_repository(path):
        yield Danger(rule="repository", reason="it is in a folder that git takes for its own")
    if change.new is not None:
        yield from parts(path.rpartition("/")[2], contents)


def _bits(change: Change, beside: Surroundings) -> Iterator[Danger]:
    if change.new is None:
        return
    if change.new.executable and not (change.old and change.old.executable):
        yield Danger(rule="executable", reason="it can be run as a program now")
    if change.new.kind == "link":
        to = lead(change.path.rpartition("/")[0], change.new.link, beside.links).path
        if to is None:
            yield Danger(rule="link", reason="a link that leads out of the folder")
        elif is_git(to) or beside.in_repository(to):
            yield Danger(rule="link", reason="a link into a folder of git's")
        elif not change.new.link.isprintable():
            yield Danger(rule="link", reason="a link with control or invisible characters")
