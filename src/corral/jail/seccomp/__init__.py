"""Seccomp profiles: read, compared, compiled, recorded."""

from .filters import Filters, filters, load
from .profile import Profile, dump, parse
from .table import MODES, Mode, Target, table

__all__ = [
    "MODES",
    "Filters",
    "Mode",
    "Profile",
    "Target",
    "dump",
    "filters",
    "load",
    "parse",
    "table",
]
