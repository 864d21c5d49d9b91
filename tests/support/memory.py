"""How much memory this process takes."""

from __future__ import annotations

import resource
from pathlib import Path


def peak() -> int:
    """The most that it has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def peak_from_now() -> int:
    """Forget what it once held, for a first start unpacks a kernel; returns what it holds now.

    In bytes. See clear_refs in Documentation/filesystems/proc.rst.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return peak()
