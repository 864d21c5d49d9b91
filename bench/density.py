"""Eight sandboxes at once: the time until all answer, and the host's memory that each takes.

    python -m bench.density [--count N]

Each runs `true` to its end; then what all its processes use is summed, the guest's memory included
(see `corral.sandbox.usage`). Floor: a bare QEMU restored from the same template, alone. Bar: the
memory grows linearly, so each of eight takes at most 1.15 times what one alone takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from pathlib import Path

from corral.events import silent
from corral.plan import Plan
from corral.sandbox import Parts, Sandbox, start
from corral.sandbox.usage import measure as usage_of

from .exec import output
from .measure import median, show, workspace
from .start import bare, make_plan

TOLERANCE = 1.15
MIB = 1 << 20


async def answering(stack: contextlib.AsyncExitStack, plan: Plan, parts: Parts) -> Sandbox:
    """A sandbox in which a command has ended."""
    sandbox = await stack.enter_async_context(start(plan, parts, silent))
    await output(sandbox, "true")
    return sandbox


async def together(plan: Plan, parts: Parts, count: int) -> tuple[float, list[int]]:
    """Seconds until `count` sandboxes answer, and the bytes that each takes then."""
    began = time.perf_counter()
    stacks = [contextlib.AsyncExitStack() for _ in range(count)]
    try:
        boxes = await asyncio.gather(*(answering(stack, plan, parts) for stack in stacks))
        took = time.perf_counter() - began
        return took, [(await box.usage()).memory for box in boxes]
    finally:
        await asyncio.gather(*(stack.aclose() for stack in stacks))


def floor(plan: Plan, parts: Parts) -> int:
    """Bytes that a bare QEMU takes."""
    with bare(plan, parts) as (_took, pid, memory):
        return usage_of([pid], ram=memory).memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="how many at once (default 8)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    count: int = options.count
    with workspace() as folder:
        plan, parts = make_plan(Path(folder))
        asyncio.run(together(plan, parts, 1))  # the template is there, and caches are warm
        base = floor(plan, parts)
        alone, (one,) = asyncio.run(together(plan, parts, 1))
        took, each = asyncio.run(together(plan, parts, count))
    middle = median(each)
    growth = sum(each) / count / one
    rows = [
        ("floor: a bare QEMU takes", f"{base / MIB:.0f} MiB"),
        ("one: answers after", f"{alone:.2f} s"),
        ("one: takes", f"{one / MIB:.0f} MiB = {one / base:.2f} x floor"),
        (f"{count}: all answer after", f"{took:.2f} s = {took / alone:.1f} x one"),
        (f"{count}: each takes", f"{middle / MIB:.0f} MiB, at most {max(each) / MIB:.0f} MiB"),
        (
            f"bar: each of {count} at most {TOLERANCE} x one",
            f"{growth:.2f}: {'met' if growth <= TOLERANCE else 'MISSED'}",
        ),
    ]
    show(f"{count} sandboxes at once", rows, as_json=options.json)


if __name__ == "__main__":
    main()
