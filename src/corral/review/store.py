"""Reviews: what sandboxes have changed, to be looked at, applied or thrown away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from ..errors import ReviewError
from ..spec.text import printable
from . import applying, journal
from .applying import Accept, Outcome
from .compare import Comparison
from .index import only_refreshed
from .making import Hidden
from .model import Change
from .renewal import renew
from .shelf import Shelf, names
from .showing import Shown, chosen, judged
from .snapshot import WORK, snapshot
from .tree import opened

META = "review.json"
_GONE = ".gone-"
_SHOWN = 5

_ONE: Mapping[int, str] = MappingProxyType({1: ""})


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox works on. works: its agents' folders by their numbers. pending: changes of
    earlier runs that it goes on from. notices: what the user should know.
    """

    works: dict[int, str]
    pending: int
    notices: tuple[str, ...]


class Review(Shelf):
    """What is kept of the changes of the sandbox `name`."""

    @classmethod
    def find(cls, name: str) -> Review:
        """One that exists. Raises ReviewError."""
        found = cls(name)
        if not found.exists():
            known = ", ".join(names()) or "none"
            raise ReviewError(
                f"there are no changes of a sandbox {name} to review.",
                hint=f"Start one with --review. Those that have some: {known}.",
            )
        return found

    # A sandbox that works on it

    @contextlib.contextmanager
    def begin(
        self, workspace: str, hidden: Hidden | None, agents: Mapping[int, str] = _ONE
    ) -> Iterator[Begun]:
        """Have snapshots of `workspace` to work on, new or with changes that are pending.

        agents: their numbers, and of each the branch of git that a new snapshot is on, or "".
        Raises ReviewError, SandboxStateError.
        """
        with contextlib.ExitStack() as stack:
            with self.changing():
                stack.enter_context(self.running())
                begun = self._begin(workspace, hidden, agents)
            yield begun

    def _begin(self, workspace: str, hidden: Hidden | None, agents: Mapping[int, str]) -> Begun:
        notices: list[str] = []
        pending: dict[int, list[Shown]] = {}
        if self.exists():
            meta = self.meta()
            for number in meta.agents:
                self._check_finished(number)
            changed = [number for number in meta.agents if self.bare_changes(agent=number)]
            pending = {number: self.changes(agent=number) for number in changed}
            if pending and meta.workspace != workspace:
                raise ReviewError(
                    f"there are changes of a sandbox {self.name} on {printable(meta.workspace)}.",
                    hint=f"Apply or discard them (corral diff {self.name}), or give this one "
                    "another name: corral up NAME, corral run --name NAME",
                )
            notices += self._going_on(pending)
        fresh = {number: name for number, name in agents.items() if number not in pending}
        left, renamed = renew(self, workspace, hidden, fresh, pending)
        for number, branch in renamed.items():
            whose = f"agent {number}'s copy" if len(agents) > 1 else "the copy"
            notices.append(f"the branch {agents[number]} is taken: {whose} is on {branch}.")
        if left:
            shown = ", ".join(printable(path) for path in left[:_SHOWN])
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            notices.append(
                f"not in the snapshot, as it cannot be read or is no plain file: {shown}{more}"
            )
        works = {number: str(self.agent(number) / WORK) for number in agents}
        return Begun(works=works, pending=sum(map(len, pending.values())), notices=tuple(notices))

    def _check_finished(self, number: int) -> None:
        """Raises ReviewError where applying an agent's changes was interrupted."""
        whose = f" --agent {number}" if len(self.meta().agents) > 1 else ""
        journal.check_finished(self.agent(number), f"{self.name}{whose}")

    def _going_on(self, pending: Mapping[int, Sequence[Shown]]) -> Iterator[str]:
        for number, shown in pending.items():
            who = f" of agent {number}" if len(self.meta().agents) > 1 else ""
            yield (
                f"going on from {_count(len(shown))}{who} not applied yet: corral diff "
                f"{self.name}. What you changed in your folder since the snapshot was made is "
                "not in the sandbox."
            )
            if moved := sum(1 for one in shown if one.standing.state == "conflict"):
                yield f"{_count(moved)} of these are in conflict with yours."

    # Looking, applying, throwing away

    @contextlib.contextmanager
    def comparison(
        self, agent: int = 1, *, write: bool = False
    ) -> Iterator[tuple[Comparison, int]]:
        """The snapshot beside what it is now, and a descriptor of the user's folder.

        write: also to put contents into its pack. Raises ReviewError, for any OSError inside, too.
        """
        folder = self.agent(agent)
        with (
            snapshot(folder, write=write) as (base, pack),
            opened(folder / WORK) as work,
            opened(Path(self.meta().workspace)) as here,
        ):
            try:
                yield Comparison(base, pack, work), here
            except OSError as error:
                raise ReviewError(
                    f"the changes of {self.name} cannot be read: {error.strerror or error}."
                ) from error

    def changes(self, paths: Sequence[str] = (), agent: int = 1) -> list[Shown]:
        """What changed, judged. Raises ReviewError."""
        with self.comparison(agent) as (comparison, here):
            return judged(comparison, here, chosen(comparison.changes(), paths))

    def bare_changes(self, paths: Sequence[str] = (), agent: int = 1) -> list[Change]:
        """What changed, neither judged nor compared with the user's folder."""
        with self.comparison(agent) as (comparison, _here):
            return chosen(comparison.changes(), paths)

    def digests(self, changes: Sequence[Change], agent: int = 1) -> dict[str, str]:
        """What tells what an agent's changes leave from what others leave there, by path."""
        if not changes:
            return {}
        with self.comparison(agent) as (comparison, _here):
            return comparison.results(list(changes))

    def both_changes(self, agent: int) -> tuple[list[Shown], int]:
        """What changed, judged, and how many files of git's folders; by one look at the tree.

        An index that git has only refreshed does not count.
        """
        with self.comparison(agent) as (comparison, here):
            changes = comparison.changes()
            in_git = sum(
                1
                for change in changes
                if change.repository and not only_refreshed(comparison, change)
            )
            return judged(comparison, here, chosen(changes, ())), in_git

    def repository_changes(self, agent: int = 1) -> list[Change]:
        """What changed in git's folders, which is neither shown nor applied unless it is named."""
        with self.comparison(agent) as (comparison, _here):
            return [change for change in comparison.changes() if change.repository]

    def apply(self, paths: Sequence[str], accept: Accept, agent: int = 1) -> Outcome:
        """Apply changes to the user's folder, see `applying.apply`."""
        with self.changing():
            workspace = Path(self.meta().workspace)
            return applying.apply(self.agent(agent), workspace, paths, accept)

    def branch(
        self, paths: Sequence[str], accept: Accept, branch: str, message: str, agent: int = 1
    ) -> tuple[str, Outcome]:
        """Make a commit of changes on a new branch, see `branch.commit`."""
        from .branch import commit

        with self.changing(), self.comparison(agent, write=True) as (comparison, here):
            changes = chosen(comparison.changes(), paths)
            workspace = Path(self.meta().workspace)
            return commit(comparison, here, workspace, changes, accept, branch, message)

    def undo(self, agent: int = 1) -> Outcome:
        """Take back what was applied last."""
        with self.changing():
            return applying.undo(self.agent(agent), Path(self.meta().workspace))

    def discard(self, paths: Sequence[str], agent: int | None = None) -> list[Change]:
        """Throw changes away; all, and the snapshot with them, when no path is named.

        agent: None for those of all. Raises ReviewError, also where applying them was interrupted
        and can be finished, SandboxStateError while a sandbox works on it.
        """
        with self.changing(), self.running():
            self._check_thrown_away(agent)
            if paths:
                return applying.discard(self.agent(agent or 1), paths)
            if agent is None or self.meta().agents == (agent,):
                self._remove()
                return []
            self.agent(agent)  # there is one
            meta = self.meta()
            others = tuple(number for number in meta.agents if number != agent)
            meta = msgspec.structs.replace(meta, agents=others)
            self.write_meta(meta)
            self.remove_later(self.folder / str(agent))
            self.sweep()
            return []

    def _check_thrown_away(self, agent: int | None) -> None:
        """Raises ReviewError where applying was interrupted, unless it cannot be finished."""
        agents: tuple[int, ...] = ()
        with contextlib.suppress(ReviewError):
            agents = self.meta().agents
        for number in agents:
            try:
                if agent in (None, number):
                    self._check_finished(number)
            except ReviewError:
                if self._is_readable(number):
                    raise

    def _is_readable(self, number: int) -> bool:
        """Whether all that applying needs is there, the user's folder with it."""
        try:
            with self.comparison(number):
                journal.read(self.agent(number))
                return True
        except ReviewError:
            return False

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.remove_later(self.folder)
        self.sweep()


def _count(number: int) -> str:
    return f"{number:,} change{'' if number == 1 else 's'}"
