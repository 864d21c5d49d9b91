"""A comparison as a patch, as counts, as a summary: what `diff` prints and a program is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .compare import Comparison
from .dangers import dangers, fold_path, twins_of
from .lines import Budget
from .model import Change, Danger, Standing
from .patch import Counts, Pair, counts, paired, patch

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


def judged(comparison: Comparison, here: int, changes: Sequence[Change]) -> list[Shown]:
    """Changes with their dangers and how they stand to the user's folder."""
    twins = twins_of(comparison.found)
    pairs = {pair.change.path: pair for pair in paired(changes, comparison.digests(list(changes)))}
    return [
        Shown(
            pair=pairs.get(change.path, Pair(change)),
            dangers=judge(comparison, change, twins),
            standing=comparison.standing(here, change),
        )
        for change in changes
    ]


def judge(
    comparison: Comparison, change: Change, twins: dict[str, int] | None = None
) -> tuple[Danger, ...]:
    """The dangers of one change."""
    contents = comparison.contents(change, _JUDGED)
    found = comparison.found
    if twins is None:
        key = fold_path(change.path)
        twins = {key: sum(1 for path in found if fold_path(path) == key)}
    return dangers(change, contents, found, twins)


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
