"""What review costs on a workspace of 10,000 files: snapshot, diff, apply, undo, starts again.

    python -m bench.review [--files N] [--changed N] [--runs N] [--machine]

The floor of the snapshot is `cp -a` of the same folder; of the start of several agents, as many of
those. With --machine also the whole of `corral
run --review -- true` beside `corral run -- true`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from corral.review import showing
from corral.review.store import Review

from .measure import arguments, median, show

_PER_FOLDER = 50
_AGENTS = 4
_EDITED = 20  # files that the user changes before agents start again


def tree(root: Path, count: int) -> None:
    """A folder as a source tree is: files of some KiB of text, 50 to a folder."""
    draw = random.Random(1)
    line = "".join(draw.choices("abcdefgh ", k=60)) + "\n"
    for number in range(count):
        folder = root / f"d{number // (_PER_FOLDER * 20)}" / f"e{number // _PER_FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = draw.randrange(1, 200)
        (folder / f"f{number}.txt").write_text("".join(f"{n} {line}" for n in range(lines)))


def change(root: Path, count: int) -> None:
    """Change every n-th file in its middle."""
    for number in range(count):
        folder = root / f"d{number // (_PER_FOLDER * 20)}" / f"e{number // _PER_FOLDER}"
        file = folder / f"f{number}.txt"
        lines = file.read_text().splitlines(keepends=True)
        lines[len(lines) // 2] = "changed\n"
        file.write_text("".join(lines))


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def one_round(folder: Path, here: Path, changed: int) -> dict[str, float]:
    """Seconds of each step, once."""
    os.environ["CORRAL_STATE_DIR"] = str(folder / "state")
    review = Review("bench")
    found = {}
    os.sync()
    found["cp -a"] = timed(
        lambda: subprocess.run(["cp", "-a", str(here), str(folder / "cp")], check=True)
    )
    shutil.rmtree(folder / "cp")
    os.sync()

    def begin() -> None:
        with review.begin(str(here), None):
            pass

    found["snapshot"] = timed(begin)
    found["diff, nothing changed"] = timed(review.changes)
    change(Path(review.folder / "1" / "work"), changed)

    def diff() -> None:
        with review.comparison() as (comparison, root):
            changes = showing.chosen(comparison.changes(), [])
            showing.judged(comparison, root, changes)
            for _pair, lines in showing.patches(comparison, changes, binary=True):
                for _line in lines:
                    pass

    found["diff"] = timed(diff)
    found["next run goes on"] = timed(begin)
    found["apply"] = timed(lambda: review.apply([], lambda _one: True))
    found["undo"] = timed(review.undo)
    found["discard"] = timed(lambda: review.discard([]))
    return found


def starts(folder: Path, here: Path, agents: int) -> dict[str, float]:
    """Seconds of starts of so many agents: anew, again, and after some files changed."""
    os.environ["CORRAL_STATE_DIR"] = str(folder / "state")
    review = Review("starts")
    name = "1 copy" if agents == 1 else f"{agents} copies"
    found = {}

    def copy() -> None:
        for number in range(agents):
            target = folder / f"cp{number}"
            subprocess.run(["cp", "-a", str(here), str(target)], check=True)

    def begin() -> None:
        with review.begin(str(here), None, {number + 1: "" for number in range(agents)}):
            pass

    os.sync()
    found[f"{name}: cp -a"] = timed(copy)
    for number in range(agents):
        shutil.rmtree(folder / f"cp{number}")
    os.sync()
    found[f"{name}: first start"] = timed(begin)
    found[f"{name}: again"] = timed(begin)
    change(here, _EDITED)
    found[f"{name}: again, {_EDITED} files changed"] = timed(begin)
    review.discard([])
    return found


def whole(here: Path, runs: int) -> dict[str, float]:
    """Seconds of whole runs, with and without review."""
    found = {}
    for name, options in (("corral run", []), ("corral run --review", ["--review"])):
        argv = [sys.executable, "-m", "corral", "run", *options, "--", "true"]
        times = []
        for _ in range(runs + 1):
            times.append(timed(partial(subprocess.run, argv, cwd=here, check=True)))
            subprocess.run(
                [sys.executable, "-m", "corral", "discard", "here", "-y"],
                cwd=here,
                capture_output=True,
            )
        found[name] = median(times[1:])
    return found


def main() -> None:
    """Measure and print."""
    given = arguments(
        __doc__ or "",
        runs=3,
        further={
            "--files": {"type": int, "default": 10_000},
            "--changed": {"type": int, "default": 1_000},
            "--machine": {"action": "store_true", "help": "whole runs, too"},
        },
    )
    with tempfile.TemporaryDirectory(prefix="corral-bench-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        here = folder / "here"
        here.mkdir()
        tree(here, given.files)
        rounds = [one_round(folder, here, given.changed) for _ in range(given.runs)]
        for each in rounds:
            for agents in (1, _AGENTS):
                each |= starts(folder, here, agents)
        found = {step: median([each[step] for each in rounds]) for step in rounds[0]}
        if given.machine:
            found |= whole(here, given.runs)
    floor = found["cp -a"]
    rows = [
        (step, f"{seconds:7.2f} s   {seconds / floor:5.1f} x cp -a")
        for step, seconds in found.items()
    ]
    title = f"review of {given.files:,} files, {given.changed:,} of them changed"
    show(title, rows, as_json=given.json)


if __name__ == "__main__":
    main()
