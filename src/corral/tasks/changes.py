"""What changed in an agent's workspace while a task ran, as the host sees it.

Names and times are compared, no content is read, no link is followed and no git is run. The time
of a file's status (ctime) is the host kernel's own, so no guest can hide a change by setting it
back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from ..channel.failures import printable
from ..errors import ReviewError
from ..review.names import is_git
from ..review.tree import opened, scan
from .model import MAX_CHANGED, Changes

MAX_NAMES = 200_000  # of a workspace; with more of them nothing is told of changes
MAX_PATH = 1024  # characters of one path in a result

Names = Mapping[str, int]
_one = threading.Lock()  # a scan holds all that it finds: one at a time


def look(folder: Path) -> Names | None:
    """Files and links below a folder, each with what tells it from a changed one.

    None where that cannot be told: too many, or the folder cannot be read.
    """
    with _one:
        try:
            with opened(folder) as root:
                found = scan(root, MAX_NAMES)
        except (ReviewError, OSError):
            return None
        return {
            path: hash((entry.kind, entry.mode, entry.signature))
            for path, entry in found.items()
            if entry.kind != "folder"
        }


def compare(before: Names | None, after: Names | None) -> Changes | None:
    """What became of the names. Pure."""
    if before is None or after is None:
        return None
    added = [path for path in after if path not in before]
    deleted = [path for path in before if path not in after]
    modified = [path for path, was in before.items() if after.get(path, was) != was]
    repository = 0
    listed: list[tuple[str, ...]] = []
    truncated = False
    for paths in (added, modified, deleted):
        plain = [path for path in paths if not is_git(path)]
        repository += len(paths) - len(plain)
        truncated = truncated or len(plain) > MAX_CHANGED
        listed.append(tuple(_shown(path) for path in sorted(plain)[:MAX_CHANGED]))
    return Changes(
        added=listed[0],
        modified=listed[1],
        deleted=listed[2],
        repository=repository,
        truncated=truncated,
    )


def _shown(path: str) -> str:
    return printable(path)[:MAX_PATH].replace("\n", "\\n")
