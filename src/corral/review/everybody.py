"""What all agents of a sandbox have changed, looked at together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .model import Change
from .overview import Made, Touched, made, overview
from .showing import chosen
from .store import Review


class Everybody(msgspec.Struct, frozen=True, kw_only=True):
    """changes: of each agent, by path. touched: every path that any of them changed, in order."""

    changes: Mapping[int, Mapping[str, Change]]
    touched: Sequence[Touched]

    def disagreements(self, agent: int, paths: Sequence[str]) -> list[Touched]:
        """Those of an agent's changes, among the chosen, that others have made otherwise."""
        own = {change.path for change in chosen(list(self.changes.get(agent, {}).values()), paths)}
        return [one for one in self.touched if one.state == "disagree" and one.path in own]


def look(review: Review, paths: Sequence[str] = ()) -> Everybody:
    """All changes, or those of some paths. Raises ReviewError.

    Contents are read only where several have changed the same path.
    """
    changes: dict[int, dict[str, Change]] = {}
    for number in review.meta().agents:
        found = review.bare_changes(paths, number)
        changes[number] = {change.path: change for change in found}
    count: dict[str, int] = {}
    for of_one in changes.values():
        for path in of_one:
            count[path] = count.get(path, 0) + 1
    results: dict[int, dict[str, Made]] = {}
    for number, of_one in changes.items():
        both = [change for path, change in of_one.items() if count[path] > 1]
        digests = review.digests(both, number)
        results[number] = {
            path: made(change, digests.get(path, "")) for path, change in of_one.items()
        }
    return Everybody(changes=changes, touched=overview(results))
