"""A comparison as a patch, as counts, as a summary: what `diff` prints and a program is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .compare import ABOVE, Comparison
from .dangers import dangers
from .lines import Budget
from .model import Change, Danger, Standing
from .patch import Counts, Pair, counts, paired, patch
from .surroundings import surroundings

_JUDGED = 4 << 20  # bytes of a content that are read to judge what is in it


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A change with all that is known of it. lines: None until they are counted."""

    pair: Pair
    dangers: tuple[Danger, ...]
    standing: Standing
    lines: Counts | None = None

    @property
    def change(self) -> Change:
        """The change itself."""
        return self.pair.change


def chosen(changes: Sequence[Change], paths: Sequence[str]) -> list[Change]:
    """Those that are named, or below what is named; of all, those outside of git's folders.

    paths: relative, normalized; "" or none at all is the whole tree.
    """
    if not any(paths):
        return [change for change in changes if not change.repository]
    wanted = set(paths)
    return [change for change in changes if any(path in wanted for path in _above(change.path))]


def _above(path: str) -> Iterator[str]:
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def stand(comparison: Comparison, here: int, changes: Sequence[Change]) -> list[Shown]:
    """Changes with how they stand to the user's folder; not judged yet.

    What lies below a file, or a link, is clean where that is removed by a change that is.
    """
    pairs = {p.change.path: p for p in paired(changes, comparison.digests(list(changes)))}
    going: set[str] = set()
    found = []
    for change in changes:  # by path: what is above comes first
        standing = comparison.standing(here, change)
        if standing.reason == ABOVE and any(above in going for above in _above(change.path)):
            standing = Standing("clean")
        elif standing.state != "conflict" and change.old is not None and change.new is None:
            going.add(change.path)
        pair = pairs.get(change.path, Pair(change))
        found.append(Shown(pair=pair, dangers=(), standing=standing))
    return found


def judged(comparison: Comparison, here: int, changes: Sequence[Change]) -> list[Shown]:
    """Changes with their dangers and how they stand to the user's folder."""
    beside = surroundings(comparison, here)
    return [
        msgspec.structs.replace(
            shown,
            dangers=dangers(shown.change, comparison.contents(shown.change, _JUDGED), beside),
        )
        for shown in stand(comparison, here, changes)
    ]


def patches(
    comparison: Comparison, changes: Sequence[Change], *, binary: bool
) -> Iterator[tuple[Pair, Iterator[bytes]]]:
    """Each entry of the diff, and its lines; to be read one after the other."""
    budget = Budget()
    pairs = paired(changes, comparison.digests(list(changes)))
    for pair in pairs:
        contents = comparison.contents(pair.change)
        yield pair, patch(pair, contents, budget, binary=binary)


def counted(comparison: Comparison, shown: Sequence[Shown]) -> list[Shown]:
    """With how many lines each adds and removes."""
    budget = Budget()
    return [
        msgspec.structs.replace(one, lines=counts(comparison.contents(one.change), budget))
        for one in shown
    ]
