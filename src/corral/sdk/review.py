"""What a sandbox that was made with `review=True` has changed, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from ..errors import ReviewError
from ..review import showing
from ..review.showing import Shown
from ..review.store import Review as Kept

_MAX_PATCH = 256 << 20
_PathList = Sequence[str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the workspace that is held back.

    path: relative to the workspace; a name that is no UTF-8 has surrogates (os.fsencode). status: A
    (new), M (changed), D (removed) or T (of another kind). moved_from: of a file that only has
    another name. dangers: why it needs a yes of its own. state: clean, done (the folder has it
    already) or conflict; reason: why it cannot be applied as things are, or "".
    """

    path: str
    status: str
    moved_from: str = ""
    dangers: tuple[str, ...] = ()
    state: Literal["clean", "done", "conflict"] = "clean"
    reason: str = ""


class Review:
    """The changes that are held back of a sandbox; they outlive it, for `corral diff`.

    Paths are relative to the workspace; none at all means all but what lies in a git folder. All
    of it raises ReviewError, also when the sandbox is not under review.
    """

    def __init__(self, name: str, *, agent: int = 1) -> None:
        self._name = name
        self._agent = agent

    async def changes(self, paths: _PathList = ()) -> list[Change]:
        """What changed so far."""

        def look() -> list[Change]:
            return [
                _change(one) for one in Kept.find(self._name).changes(_plain(paths), self._agent)
            ]

        return await asyncio.to_thread(look)

    async def diff(self, paths: _PathList = ()) -> bytes:
        """The same as a patch in git's format, for `git apply`; at most 256 MiB."""

        def look() -> bytes:
            with Kept.find(self._name).comparison(self._agent) as (comparison, _here):
                changes = showing.chosen(comparison.changes(), _plain(paths))
                entries = showing.patches(comparison, changes, binary=True)
                return _bounded(line for _pair, lines in entries for line in lines)

        return await asyncio.to_thread(look)

    async def apply(self, paths: _PathList = (), *, dangerous: bool = False) -> list[Change]:
        """Apply changes to the workspace's folder; returns those that were left.

        Left is what is in conflict and, without `dangerous`, what is dangerous. What is applied
        is what was judged, also while the sandbox goes on writing.
        """

        def put() -> list[Change]:
            kept = Kept.find(self._name)
            outcome = kept.apply(_plain(paths), lambda _one: dangerous, self._agent)
            return [_change(one) for one in (*outcome.conflicts, *outcome.refused)]

        return await asyncio.to_thread(put)

    async def undo(self) -> list[Change]:
        """Take back what was applied last; returns what was not, as it was changed since."""

        def put() -> list[Change]:
            return [_change(one) for one in Kept.find(self._name).undo(self._agent).conflicts]

        return await asyncio.to_thread(put)


def _bounded(lines: Iterable[bytes]) -> bytes:
    found = bytearray()
    for line in lines:
        found += line
        if len(found) > _MAX_PATCH:
            raise ReviewError(
                "the patch is larger than 256 MiB.", hint="Ask for some paths, or: corral diff NAME"
            )
    return bytes(found)


def _change(one: Shown) -> Change:
    return Change(
        path=one.change.path,
        status=one.change.status,
        moved_from=one.pair.moved_from,
        dangers=tuple(danger.reason for danger in one.dangers),
        state=one.standing.state,
        reason=one.change.problem or one.standing.reason,
    )


def _plain(paths: _PathList) -> list[str]:
    if isinstance(paths, str | bytes):
        raise TypeError("paths must be a list of texts, not one text")
    return [path.strip("/").removeprefix("./") for path in paths]
