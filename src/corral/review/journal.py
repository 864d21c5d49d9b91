"""What is being applied, or was applied last: enough to finish it, and to take it back.

applied    below the snapshot's folder, as MessagePack
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from ..errors import ReviewError
from ..spec.files import write_atomically
from .model import Was

JOURNAL = "applied"


class Step(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of one name in the user's folder."""

    path: bytes
    before: Was | None
    after: Was | None


class Journal(msgspec.Struct, array_like=True):
    """Steps under way, or the last that were made.

    writing: files are written beside their places; placing: all of them are whole. undoing: these
    steps take others back. folders: those that applying made, or is about to make.
    """

    state: Literal["writing", "placing", "complete"]
    steps: list[Step]
    undoing: bool = False
    folders: list[bytes] = []


def read(folder: Path) -> Journal:
    """The journal of a snapshot; one without steps when there is none. Raises ReviewError."""
    try:
        return msgspec.msgpack.decode((folder / JOURNAL).read_bytes(), type=Journal)
    except FileNotFoundError:
        return Journal("complete", [])
    except (OSError, ValueError) as error:
        raise ReviewError(
            f"what was applied last cannot be read: {error}.",
            hint=f"Remove {folder / JOURNAL}; it can then not be taken back.",
        ) from error


def write(folder: Path, journal: Journal) -> None:
    """Keep it, in one step. Raises OSError."""
    write_atomically(folder / JOURNAL, msgspec.msgpack.encode(journal), mode=0o600)


def check_finished(folder: Path, name: str) -> None:
    """Raise ReviewError where applying, or taking back, was interrupted.

    The user's folder is half of each then, and only the journal knows which half. name: whose it
    is, as `corral apply` is told it.
    """
    found = read(folder)
    if found.state == "complete":
        return
    undo = f"corral apply --undo {name}"
    if found.undoing:
        raise ReviewError(
            "taking back what was applied was interrupted.", hint=f"Finish that first: {undo}"
        )
    raise ReviewError(
        "applying changes was interrupted.",
        hint=f"Finish that first: corral apply {name}, or take it back: {undo}",
    )
