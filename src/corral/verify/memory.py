"""All memory of a guest, searched on the host, where it is a file without a name."""

from __future__ import annotations

import mmap
import os

from .judging import breach_if, runnable, tried_if
from .scenes import Inside


async def without(scene: Inside, what: str, *secrets: str) -> str:
    """None of these is in the guest's memory, in which a mark of ours is found.

    what: as a sentence names them. Raises Breach, NotTried.
    """
    mark = f"mark-{os.urandom(8).hex()}"
    # The control: what a process of the guest wrote is found in the same way.
    held = await scene.root(f"""
kept = bytearray(bytes.fromhex({mark.encode().hex()!r}) * 64)
with open("/tmp/mark", "wb") as file:
    file.write(kept)
outcome["held"] = "done"
""")
    runnable(held)
    needles = [mark.encode(), *(secret.encode() for secret in secrets)]
    size, present = searched(scene.sandbox.machine.memory, needles)
    tried_if(present[0], "what the guest holds is not found in its memory either")
    breach_if(any(present[1:]), f"{what} is in the guest's memory")
    return f"not in {size >> 20} MiB of memory, in which a mark of the guest is found"


def searched(descriptor: int, needles: list[bytes]) -> tuple[int, list[bool]]:
    """How many bytes of a sparse file were looked at, and which byte strings are in it."""
    found, looked, offset = [False] * len(needles), 0, 0
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as view:
        while offset < size:
            try:
                start = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: only holes are left
                break
            offset = os.lseek(descriptor, start, os.SEEK_HOLE)
            looked += offset - start
            for index, needle in enumerate(needles):
                found[index] = found[index] or view.find(needle, start, offset) >= 0
    return looked, found
