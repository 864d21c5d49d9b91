"""Templates: machines that were booted once, saved, and are restored in place of booting."""

from .memory import copy_memory, keep_memory
from .store import (
    Entry,
    Shape,
    Template,
    entries,
    find,
    is_broken,
    mark_broken,
    prune,
    saving,
    shape_of,
)

__all__ = [
    "Entry",
    "Shape",
    "Template",
    "copy_memory",
    "entries",
    "find",
    "is_broken",
    "keep_memory",
    "mark_broken",
    "prune",
    "saving",
    "shape_of",
]
