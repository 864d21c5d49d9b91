"""Several agents: who changed what, and where two disagree. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from .model import Change

Content = str | None  # what tells one content from another, a digest say; None: removed


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent made of a path. status: as of a change. result: see `Content`."""

    status: str
    result: Content


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """A path that agents changed. alone: one; agree: all to the same; disagree.

    blocked_by: paths of other agents that this one cannot be beside: a file where it needs a
    folder.
    """

    path: str
    agents: tuple[int, ...]
    state: Literal["alone", "agree", "disagree"]
    blocked_by: tuple[str, ...] = ()


def made(change: Change, digest: Content) -> Made:
    """What a change comes to; its mode counts, too."""
    if change.new is None:
        return Made(status=change.status, result=None)
    return Made(status=change.status, result=f"{change.new.git_mode} {digest}")


def overview(agents: Mapping[int, Mapping[str, Made]]) -> list[Touched]:
    """Every path that any agent changed, in order, with who did and whether they agree.

    Two disagree when they leave different things at one path, and when one leaves a file where
    another has files below.
    """
    makers: dict[str, dict[int, Content]] = {}
    for number in sorted(agents):
        for path, one in agents[number].items():
            makers.setdefault(path, {})[number] = one.result
    files = {
        path: {number for number, result in by.items() if result is not None}
        for path, by in makers.items()
    }
    blocked: dict[str, set[str]] = {}
    for path, numbers in files.items():
        above = path
        while numbers and "/" in above:
            above = above.rpartition("/")[0]
            if files.get(above, set()) - numbers:
                blocked.setdefault(path, set()).add(above)
                blocked.setdefault(above, set()).add(path)
    return [
        Touched(
            path=path,
            agents=tuple(by),
            state=_state(list(by.values()), blocked.get(path)),
            blocked_by=tuple(sorted(blocked.get(path, ()))),
        )
        for path, by in sorted(makers.items())
    ]


def _state(
    results: list[Content], blocked: set[str] | None
) -> Literal["alone", "agree", "disagree"]:
    if blocked or len(set(results)) > 1:
        return "disagree"
    return "alone" if len(results) == 1 else "agree"
