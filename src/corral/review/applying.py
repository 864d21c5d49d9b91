"""Applying changes to the user's folder, taking that back, and throwing changes away.

What is applied is what was judged: a content is put into the pack, which no guest can write, and
judged and placed from there. A journal says what is under way, so that an interrupted apply is
finished by doing it again, and a finished one can be undone.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..proc import crash_point
from .compare import Comparison, steady, there_in
from .dangers import dangers
from .journal import Journal, Step, read, write
from .model import NONE, Change, Side, Standing, Was
from .patch import MAX_SHOWN, Contents, Pair
from .placing import BlockedError, Place
from .showing import Shown, chosen, stand
from .snapshot import WORK, snapshot, write_base
from .surroundings import Surroundings, surroundings
from .tree import opened

_OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_AT_ONCE = 500  # files that are written before they are synced together
BEING_WRITTEN = "it is being written in the sandbox"

Accept = Callable[[Shown], bool]


class Outcome(msgspec.Struct, kw_only=True):
    """What became of the changes that were to be applied, undone or thrown away.

    conflicts: the user's folder has something else. refused: dangerous, without a yes. kept: files
    of the user's that an interrupted apply had taken out of the way, by where they are now.
    """

    applied: list[Shown] = []
    conflicts: list[Shown] = []
    refused: list[Shown] = []
    kept: list[str] = []

    @property
    def whole(self) -> bool:
        """Whether nothing was left."""
        return not (self.conflicts or self.refused or self.kept)


def apply(folder: Path, workspace: Path, paths: Sequence[str], accept: Accept) -> Outcome:
    """Apply the snapshot's changes, or those named, to the workspace.

    accept: asked for each dangerous change. Raises ReviewError.
    """
    with _open(folder, workspace) as (comparison, here):
        outcome = Outcome()
        place = Place(here, comparison.pack)
        journal = read(folder)
        if journal.undoing:
            raise ReviewError(
                "taking back what was applied was interrupted.",
                hint="Finish that first: corral apply --undo NAME",
            )
        outcome.kept += _clear(place, journal)
        work = _Work(folder, comparison, place, here, outcome)
        again = {step.path for step in journal.steps if journal.state != "complete"}
        changes = chosen(comparison.changes(), paths)
        beside = surroundings(comparison, here)
        todo: list[tuple[Shown, Step]] = []
        there: list[Step] = []
        for shown in stand(comparison, here, changes):
            found = staged(comparison, shown, beside)
            if found is None:
                outcome.conflicts.append(stuck(shown, BEING_WRITTEN))
                continue
            shown, step = found
            if shown.change.problem:
                outcome.conflicts.append(stuck(shown, shown.change.problem))
            elif shown.standing.state == "conflict":
                outcome.conflicts.append(shown)
            elif shown.dangers and not accept(shown):
                outcome.refused.append(shown)
            elif step.path not in again and work.is_made(step):
                there.append(step)
                outcome.applied.append(shown)
            else:
                todo.append((shown, step))
        if there or todo:
            comparison.pack.sync()
        work.remember(there)
        if journal.state == "complete":
            if not todo:  # the last one can still be taken back
                _trim(comparison, journal)
                return outcome
            journal = Journal("writing", [])
        journal = work.carry_out(todo, journal)
        journal.state = "complete"
        write(folder, journal)
        _trim(comparison, journal)
        return outcome


def undo(folder: Path, workspace: Path) -> Outcome:
    """Take back what was applied last; the changes are pending again. Raises ReviewError."""
    with _open(folder, workspace) as (comparison, here):
        journal = read(folder)
        if not journal.steps:
            raise ReviewError("nothing was applied that could be taken back.")
        outcome = Outcome()
        place = Place(here, comparison.pack)
        outcome.kept += _clear(place, journal)
        steps = journal.steps
        if not journal.undoing:
            steps = [Step(step.path, step.after, step.before) for step in steps]
        todo: list[tuple[Shown, Step]] = []
        for step in steps:
            shown = _shown(step)
            path = shown.change.path
            if any(comparison.matches(here, path, was) for was in (step.before, step.after)):
                todo.append((shown, step))
            else:
                outcome.conflicts.append(stuck(shown, "it was changed here since"))
        work = _Work(folder, comparison, place, here, outcome)
        work.carry_out(todo, Journal("writing", list(steps), True, journal.folders))
        rest = {os.fsencode(shown.change.path) for shown in outcome.conflicts}
        left = [Step(s.path, s.after, s.before) for s in steps if s.path in rest]
        write(folder, Journal("complete", left, folders=journal.folders))
        return outcome


def discard(folder: Path, paths: Sequence[str]) -> list[Change]:
    """Have the named paths of the snapshot as they were; what changed back. Raises ReviewError."""
    with _open(folder, folder / WORK) as (comparison, work):
        changes = chosen(comparison.changes(), paths)
        place = Place(work, comparison.pack)
        for change in reversed(changes):
            if change.old is None or change.status == "T":
                with _told(change.path):
                    place.remove(change.path, _anything)
                    place.prune(change.path, lambda path: path in comparison.base.names)
        for change in changes:
            if change.old is not None:
                with _told(change.path):
                    was = comparison.base.names[change.path]
                    place.prepare(change.path, was, was.mode)
                    place.commit(change.path, _anything)
        return changes


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (BlockedError, OSError) as error:
        raise ReviewError(
            f"{path!a} in the snapshot cannot be put back: {error}.",
            hint="Throw all changes away: corral discard NAME",
        ) from error


def _anything(_folder: int, _name: str) -> bool:
    return True


@contextlib.contextmanager
def _open(folder: Path, workspace: Path) -> Iterator[tuple[Comparison, int]]:
    """The comparison, and a descriptor of the folder that is to be changed."""
    with (
        snapshot(folder, write=True) as (base, pack),
        opened(folder / WORK) as work,
        opened(workspace) as here,
    ):
        try:
            yield Comparison(base, pack, work), here
        except OSError as error:
            raise ReviewError(
                f"the changes cannot be put in place: {error.strerror or error}.",
                hint="Each file is the old one or the new one. Once there is room, say the same "
                "again.",
            ) from error


def staged(comparison: Comparison, shown: Shown, beside: Surroundings) -> tuple[Shown, Step] | None:
    """A change with its content in the pack, judged by that; None while it is being written."""
    change, names = shown.change, comparison.base.names
    raw = os.fsencode(change.path)
    before = names.get(change.path)
    if before is not None and before.kind not in ("file", "link"):
        before = None
    after: Was | None = None
    new = change.new
    if new is not None and new.kind == "file" and not change.problem:
        try:
            offset, size, seen, mode = steady(comparison.work, change.path, comparison.pack)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _OUR_DISK:
                raise
            why = "it is too large" if error.errno == errno.EFBIG else "it cannot be read"
            change = msgspec.structs.replace(change, problem=why)
        else:
            new = Side(kind="file", mode=mode, size=size)
            after = Was(raw, "file", mode, size, offset, b"", NONE, seen)
            change = msgspec.structs.replace(change, new=new)
    elif new is not None and new.kind == "link":
        now = comparison.found[change.path].signature
        after = Was(raw, "link", 0o777, new.size, 0, os.fsencode(new.link), NONE, now)
    old = comparison.old_content(change.path, change.old)
    content = os.fsencode(new.link) if new is not None and new.kind == "link" else b""
    if after is not None and after.kind == "file":
        content = comparison.pack.read(after.offset, min(after.size, MAX_SHOWN))
    found = dangers(change, Contents(old, content), beside)
    pair = Pair(change, shown.pair.moved_from)
    return (
        msgspec.structs.replace(shown, pair=pair, dangers=found),
        Step(raw, before, after),
    )


class _Work:
    """Steps that are being made."""

    def __init__(
        self, folder: Path, comparison: Comparison, place: Place, here: int, outcome: Outcome
    ) -> None:
        self._folder = folder
        self._comparison = comparison
        self._place = place
        self._here = here
        self._outcome = outcome

    def is_made(self, step: Step) -> bool:
        """Whether the user's folder has already what a step is to leave."""
        return self._comparison.matches(self._here, os.fsdecode(step.path), step.after)

    def remember(self, made: Sequence[Step]) -> None:
        """Count the changes of steps as no changes any more."""
        for step in made:
            self._remember(step)
        if made:
            write_base(self._folder, self._comparison.base)

    def _remember(self, step: Step) -> None:
        path = os.fsdecode(step.path)
        if step.after is None:
            self._comparison.base.names.pop(path, None)
            return
        now = there_in(self._here, path)
        here = now.signature if now is not None else NONE
        self._comparison.base.names[path] = msgspec.structs.replace(step.after, here=here)

    def carry_out(self, todo: list[tuple[Shown, Step]], journal: Journal) -> Journal:
        """Make steps; what is blocked is a conflict. Returns all that undoing has to take back."""
        again = {step.path for step in journal.steps}
        made = {step.path: step for step in journal.steps}
        folders = dict.fromkeys(journal.folders)

        def stays(above: str) -> bool:
            if journal.undoing:
                return os.fsencode(above) not in folders
            return above in self._comparison.found

        for batch in _batches(todo):
            known = len(self._outcome.conflicts)
            for _shown, step in batch:
                first = made.get(step.path, step)
                made[step.path] = Step(step.path, first.before, step.after)
            if not journal.undoing:
                folders |= dict.fromkeys(_missing(self._here, batch))
            journal = Journal("writing", list(made.values()), journal.undoing, list(folders))
            write(self._folder, journal)
            self._place.expect(len(batch))
            done = {step.path for _, step in batch if step.path in again and self.is_made(step)}
            ready = self._prepared(batch, done)
            self._place.sync()
            crash_point("apply-written")
            journal.state = "placing"
            write(self._folder, journal)
            for shown, step in ready:
                try:
                    self._make(step, step.path in done, stays)
                except BlockedError as error:
                    self._outcome.conflicts.append(stuck(shown, error.reason))
                else:
                    self._outcome.applied.append(shown)
            for shown in self._outcome.conflicts[known:]:  # nothing of these can be taken back
                if (path := os.fsencode(shown.change.path)) not in again:
                    made.pop(path, None)
        self._place.sync()
        write_base(self._folder, self._comparison.base)
        crash_point("apply-remembered")
        return Journal(journal.state, list(made.values()), journal.undoing, list(folders))

    def _prepared(
        self, batch: list[tuple[Shown, Step]], done: set[bytes]
    ) -> list[tuple[Shown, Step]]:
        """Those whose new content is beside its place, or that need none."""
        ready = []
        try:
            for shown, step in batch:
                path = os.fsdecode(step.path)
                try:
                    if step.after is not None and step.path not in done:
                        mode = step.after.mode if step.after.here != NONE else None
                        self._place.prepare(path, step.after, mode)
                except BlockedError as error:
                    self._outcome.conflicts.append(stuck(shown, error.reason))
                else:
                    ready.append((shown, step))
        except BaseException:
            for _shown, step in batch:
                self._place.clear(os.fsdecode(step.path), ())
            raise
        return ready

    def _make(self, step: Step, done: bool, stays: Callable[[str], bool]) -> None:
        path = os.fsdecode(step.path)

        def allowed(folder: int, name: str) -> bool:
            return self._comparison.matches(folder, name, step.before)

        if step.after is None:
            if not done:
                self._place.remove(path, allowed)
            self._place.prune(path, stays)
        elif not done:
            self._place.commit(path, allowed)
        self._remember(step)


def _batches(todo: list[tuple[Shown, Step]]) -> Iterator[list[tuple[Shown, Step]]]:
    """Removals, what is inside first; then the rest. Each some at a time."""
    gone = sorted((one for one in todo if one[1].after is None), key=_path, reverse=True)
    rest = sorted((one for one in todo if one[1].after is not None), key=_path)
    for part in (gone, rest):
        for begin in range(0, len(part), _AT_ONCE):
            yield part[begin : begin + _AT_ONCE]


def _path(one: tuple[Shown, Step]) -> bytes:
    return one[1].path


def _clear(place: Place, journal: Journal) -> list[str]:
    """Remove what an interrupted apply left; what is none of it stays, and is named."""
    if journal.state == "complete":
        return []
    found = []
    for step in journal.steps:
        known = (step.before, step.after) if journal.state == "placing" else ()
        stranger = place.clear(os.fsdecode(step.path), known)
        if stranger is not None:
            found.append(stranger)
    return found


def _missing(here: int, batch: list[tuple[Shown, Step]]) -> Iterator[bytes]:
    """Folders that have to be made for files."""
    known: set[bytes] = set()
    for _shown, step in batch:
        above = step.path if step.after is not None else b""
        while (above := above.rpartition(b"/")[0]) and above not in known:
            known.add(above)
            if there_in(here, os.fsdecode(above)) is None:
                yield above


def _trim(comparison: Comparison, journal: Journal) -> None:
    """Give back the room of contents that were judged and not applied."""
    steps = [was for step in journal.steps for was in (step.before, step.after) if was is not None]
    known = (*steps, *comparison.base.names.values())
    comparison.pack.trim(
        max((was.offset + was.size for was in known if was.kind == "file"), default=0)
    )


def stuck(shown: Shown, reason: str) -> Shown:
    """A change that cannot be made. reason: for a person."""
    return msgspec.structs.replace(shown, standing=Standing("conflict", reason))


def _shown(step: Step) -> Shown:
    change = Change(
        path=os.fsdecode(step.path),
        old=step.before.side if step.before else None,
        new=step.after.side if step.after else None,
    )
    return Shown(pair=Pair(change), dangers=(), standing=Standing("clean"))
