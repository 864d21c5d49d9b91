"""Which lines of two texts differ. Pure, and bounded: both texts may be an attacker's.

First what both begin and end with is taken off, then lines that each has exactly once hold the two
together (patience diff), then Myers' algorithm looks at what is left in between ("An O(ND)
Difference Algorithm and Its Variations", 1986). Whatever would take too long is called replaced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_MOST_EDITS = 400  # in one stretch between two lines that hold the texts together
Block = tuple[int, int, int, int]


class Budget:
    """How many steps may still be taken: some 5 million in a second."""

    def __init__(self, steps: int = 20_000_000) -> None:
        self.left = steps


def differing(old: Sequence[bytes], new: Sequence[bytes], budget: Budget) -> list[Block]:
    """(old begin, old end, new begin, new end) of each stretch that differs, in order."""
    numbers: dict[bytes, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old]
    b = [numbers.setdefault(line, len(numbers)) for line in new]
    found: list[Block] = []
    todo: list[Block] = [(0, len(a), 0, len(b))]
    while todo:
        i1, i2, j1, j2 = _trimmed(a, b, todo.pop())
        if i1 == i2 or j1 == j2:
            if i1 != i2 or j1 != j2:
                found.append((i1, i2, j1, j2))
            continue
        budget.left -= i2 - i1 + j2 - j1
        anchors = _anchors(a, b, (i1, i2, j1, j2)) if budget.left > 0 else []
        if not anchors:
            found += _myers(a, b, (i1, i2, j1, j2), budget)
            continue
        i, j = i1, j1
        for x, y in anchors:
            todo.append((i, x, j, y))
            i, j = x + 1, y + 1
        todo.append((i, i2, j, j2))
    return _joined(sorted(found))


def _trimmed(a: list[int], b: list[int], block: Block) -> Block:
    i1, i2, j1, j2 = block
    while i1 < i2 and j1 < j2 and a[i1] == b[j1]:
        i1, j1 = i1 + 1, j1 + 1
    while i1 < i2 and j1 < j2 and a[i2 - 1] == b[j2 - 1]:
        i2, j2 = i2 - 1, j2 - 1
    return i1, i2, j1, j2


def _anchors(a: list[int], b: list[int], block: Block) -> list[tuple[int, int]]:
    """Lines that are once in each, as many as stand in the same order in both."""
    i1, i2, j1, j2 = block
    ones = _once(a, i1, i2)
    others = _once(b, j1, j2)
    pairs = [(i, others[line]) for line, i in ones.items() if line in others]  # by i already
    # The longest rising run of their places in b.
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for n, (_i, j) in enumerate(pairs):
        place = bisect_left(tails, j)
        before.append(ends[place - 1] if place else -1)
        tails[place : place + 1] = [j]
        ends[place : place + 1] = [n]
    chosen: list[tuple[int, int]] = []
    n = ends[-1] if ends else -1
    while n >= 0:
        chosen.append(pairs[n])
        n = before[n]
    return chosen[::-1]


def _once(lines: list[int], begin: int, end: int) -> dict[int, int]:
    places: dict[int, int] = {}
    for place in range(begin, end):
        places[lines[place]] = -1 if lines[place] in places else place
    return {line: place for line, place in places.items() if place >= 0}


def _myers(a: list[int], b: list[int], block: Block, budget: Budget) -> list[Block]:
    i1, i2, j1, j2 = block
    n, m = i2 - i1, j2 - j1
    furthest = {1: 0}
    trace: list[dict[int, int]] = []
    for d in range(min(n + m, _MOST_EDITS) + 1):
        trace.append(dict(furthest))
        for k in range(-d, d + 1, 2):
            down = k == -d or (k != d and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            y = begun = x - k
            while x < n and y < m and a[i1 + x] == b[j1 + y]:
                x, y = x + 1, y + 1
            furthest[k] = x
            budget.left -= 1 + y - begun
            if x >= n and y >= m:
                return [(i1 + p, i1 + q, j1 + r, j1 + s) for p, q, r, s in _way_back(trace, n, m)]
        if budget.left <= 0:
            break
    return [block]


def _way_back(trace: list[dict[int, int]], x: int, y: int) -> list[Block]:
    """The single steps of the way that `trace` found, each one line."""
    steps: list[Block] = []
    for d in range(len(trace) - 1, 0, -1):
        furthest, k = trace[d], x - y
        down = k == -d or (k != d and furthest[k - 1] < furthest[k + 1])
        last = k + 1 if down else k - 1
        x = furthest[last]
        y = x - last
        steps.append((x, x, y, y + 1) if down else (x, x + 1, y, y))
    return steps


def _joined(blocks: list[Block]) -> list[Block]:
    """Blocks that touch, as one."""
    found: list[Block] = []
    for i1, i2, j1, j2 in blocks:
        if found and found[-1][1] == i1 and found[-1][3] == j1:
            found[-1] = (found[-1][0], i2, found[-1][2], j2)
        else:
            found.append((i1, i2, j1, j2))
    return found
