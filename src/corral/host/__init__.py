"""What this machine has, what it lacks, and how to get it."""

from __future__ import annotations

from .facts import Facts, Need, measure
from .kvm import KvmFinding
from .platform import AppArmor, OsRelease
from .programs import Program, Virtiofsd, parse_version
from .system import System
from .userns import Finding
from .users import User

__all__ = [
    "AppArmor",
    "Facts",
    "Finding",
    "KvmFinding",
    "Need",
    "OsRelease",
    "Program",
    "System",
    "User",
    "Virtiofsd",
    "measure",
    "parse_version",
]
