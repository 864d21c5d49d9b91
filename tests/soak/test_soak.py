"""200 sandboxes, 4 at a time, many of them killed: nothing is left. By `make soak`.

SOAK_COUNT, SOAK_TOGETHER and SOAK_SEED change that; a failure tells the seed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import psutil
import pytest

from corral.keeper.store import names
from corral.sandbox import sweep
from tests.soak.rounds import Soak
from tests.support import leftovers

COUNT = int(os.environ.get("SOAK_COUNT", "200"))
TOGETHER = int(os.environ.get("SOAK_TOGETHER", "4"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
GROWTH = 64 << 20  # bytes that this process may have grown by


@pytest.mark.timeout(60 + 30 * COUNT)
async def test_nothing_is_left_of_many_sandboxes(tmp_path: Path) -> None:
    await soak(tmp_path, COUNT, TOGETHER, SEED)


async def soak(folder: Path, count: int, together: int, seed: int) -> None:
    """Run it, then look everywhere."""
    first = Soak(folder / "first", 3, seed)  # one of each kind: what is kept for good is there now
    (folder / "first").mkdir()
    await first.run(1)
    this = psutil.Process()
    descriptors, memory = leftovers.descriptors(this.pid), this.memory_info().rss
    work = Soak(folder, count, seed)
    await work.run(together)
    print(f"seed {seed}:", *(f"{n} x {end}" for end, n in sorted(work.ends.items())), sep="\n  ")
    assert not first.failures and not work.failures, f"seed {seed}: {work.failures}"
    assert leftovers.wait_until_gone(20) == [], f"seed {seed}"
    sweep()  # a corral that was killed before it had a warden leaves an empty folder to the next
    left = {kind: found for kind, found in leftovers.everything().items() if found}
    assert not left, f"seed {seed}: {left}"
    assert names() == [], f"seed {seed}"
    now = leftovers.descriptors(this.pid)
    assert len(now) <= len(descriptors), f"seed {seed}: {sorted(set(now.items()))}"
    assert this.memory_info().rss < memory + GROWTH, f"seed {seed}"
