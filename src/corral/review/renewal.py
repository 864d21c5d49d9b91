"""New snapshots for a sandbox to work on, made of earlier ones where these are of use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..host import repository
from ..host.copies import remove_tree
from ..proc import crash_point
from ..spec.text import printable
from .making import Hidden, make_all
from .shelf import META, Meta, Shelf


def renew(
    shelf: Shelf,
    workspace: str,
    hidden: Hidden | None,
    agents: Mapping[int, str],
    kept: Collection[int],
) -> tuple[list[str], dict[int, str]]:
    """Make the snapshots of `agents`, beside those that are kept.

    Returns what is not in them, and the branches that are other ones than were asked for.
    """
    if not agents:
        return [], {}
    if repository.linked_worktree(Path(workspace, ".git")) is not None:
        raise ReviewError(
            "the workspace is a linked git worktree: its repository is elsewhere, and what an "
            "agent does there cannot be held back.",
            hint="Review works on a clone (git clone), or on the main worktree.",
        )
    if str(shelf.folder).startswith(workspace.rstrip("/") + "/"):
        raise ReviewError(
            f"the snapshot would be in the workspace: {shelf.folder}.",
            hint="Set CORRAL_STATE_DIR to a folder outside of it.",
        )
    fresh = shelf.folder.with_name(f".{shelf.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):  # left by one that was killed
            remove_tree(fresh)
        _retire(shelf, fresh, workspace, agents, kept)
        left, renamed = make_all(workspace, fresh, hidden, agents)
        meta = Meta(
            workspace=workspace,
            created=time.time(),
            agents=tuple(sorted({*agents, *kept})),
        )
        crash_point("snapshot-made")
        if kept:
            _replace(shelf, fresh, agents)
        crash_point("snapshot-placed")
        shelf.write_meta(meta, shelf.folder if kept else fresh)
        if not kept:
            fresh.rename(shelf.folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            remove_tree(fresh)
        raise ReviewError(
            f"no snapshot of {printable(workspace)} can be made: {error.strerror or error}.",
            hint="It needs room twice for what is in the folder (CORRAL_STATE_DIR says where).",
        ) from error
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(fresh)
        raise
    return left, renamed


def _retire(
    shelf: Shelf, fresh: Path, workspace: str, agents: Collection[int], kept: Collection[int]
) -> None:
    """Move snapshots without changes out of the review, into the new folder `fresh` if they can
    be of use there. From then on it has only what is kept.
    """
    if not shelf.exists():
        fresh.mkdir(mode=0o700)
        return
    meta = shelf.meta()
    old = [number for number in meta.agents if number not in kept]
    useful = {number for number in old if number in agents and meta.workspace == workspace}
    if kept:
        fresh.mkdir(mode=0o700)
        meta = msgspec.structs.replace(meta, agents=tuple(sorted(kept)))
        shelf.write_meta(meta)
        for number in old:
            (shelf.folder / str(number)).rename(fresh / str(number))
    else:
        shelf.folder.rename(fresh)
        (fresh / META).unlink()
    for entry in fresh.iterdir():
        if entry.name not in {str(number) for number in useful}:
            shelf.remove_later(entry)
    crash_point("snapshot-retired")
    shelf.sweep()


def _replace(shelf: Shelf, fresh: Path, agents: Collection[int]) -> None:
    """Put snapshots into a review that there is."""
    for number in agents:
        place = shelf.folder / str(number)
        with contextlib.suppress(FileNotFoundError):  # left by one that was killed
            shelf.remove_later(place)
        (fresh / str(number)).rename(place)
    fresh.rmdir()
    shelf.sweep()
