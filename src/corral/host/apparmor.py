"""The AppArmor profile that lets bubblewrap work on Ubuntu 23.10 and later.

There, kernel.apparmor_restrict_unprivileged_userns=1 takes all capabilities from a user namespace
unless a profile allows it to the program. corral's profile is for a copy of bubblewrap of its own;
profiles/corral-bwrap says why.
"""

from __future__ import annotations

from pathlib import Path

from .facts import Facts
from .platform import PROFILE_FILE
from .programs import PRIVATE_BWRAP
from .system import System

SHIPPED_PROFILE = Path(__file__).parent / "profiles" / "corral-bwrap"


def wanted(facts: Facts) -> bool:
    """Whether this machine needs the profile: AppArmor restricts, and bubblewrap does not work."""
    return facts.apparmor.restricts and facts.bwrap is not None and not facts.user_namespaces.ok


def outdated(system: System) -> bool:
    """Whether corral's copy of bubblewrap differs from the system's, after an update say."""
    original = system.which("bwrap")
    copy = system.path(PRIVATE_BWRAP)
    if original is None or not copy.is_file():
        return False
    return copy.read_bytes() != system.path(original).read_bytes()


def install_commands(system: System) -> list[list[str]]:
    """What root runs to install the profile and the copy; [] without bubblewrap to copy."""
    bwrap = system.which("bwrap")
    if bwrap is None:
        return []
    return [
        *_put(bwrap, PRIVATE_BWRAP, "0755"),
        *_put(str(SHIPPED_PROFILE), PROFILE_FILE, "0644"),
        ["apparmor_parser", "--replace", PROFILE_FILE],
    ]


def _put(source: str, target: str, mode: str) -> list[list[str]]:
    """Copy to a temporary name, then rename: a bwrap that runs meanwhile is never half a file.

    apparmor_parser skips files that end in .dpkg-new when it loads the whole folder.
    """
    temporary = f"{target}.dpkg-new"
    return [
        ["install", "-D", "-o", "root", "-g", "root", "-m", mode, source, temporary],
        ["mv", "-fT", temporary, target],
    ]
