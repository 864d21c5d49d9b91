"""Reviews on disk: one folder for each sandbox's name, private to the user.

    reviews/NAME/              below the state folder
        review.json            of which folder, since when
        N/                     the snapshot of agent N, see `snapshot` and `applying`
    reviews/.NAME.running      flock(2), held while a sandbox works on it
    reviews/.NAME.changing     flock(2), held while it is made, applied or thrown away
    reviews/.NAME.new          snapshots that are being made, from earlier ones or anew
    reviews/.gone-*            what is being removed

The kernel drops a lock when its holder ends, however that comes.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from ..errors import ReviewError, SandboxStateError
from ..host import repository
from ..host.copies import remove_tree
from ..paths import state_dir
from ..proc import crash_point
from ..spec.files import write_atomically
from ..spec.text import printable
from ..spec.values import NAME_PATTERN
from . import applying, journal
from .applying import Accept, Outcome
from .compare import Comparison
from .index import only_refreshed
from .locks import locked
from .making import make_all
from .model import Change
from .showing import Shown, chosen, judged
from .snapshot import WORK, snapshot
from .tree import opened

_META = "review.json"
_GONE = ".gone-"
_SHOWN = 5

Hidden = Callable[[str, bool], bool]
_ONE: Mapping[int, str] = MappingProxyType({1: ""})


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Of which folder a review is. created: seconds since 1970. agents: their numbers."""

    workspace: str
    created: float
    agents: tuple[int, ...] = (1,)
    version: int = 1


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox works on. works: its agents' folders by their numbers. pending: changes of
    earlier runs that it goes on from. notices: what the user should know.
    """

    works: dict[int, str]
    pending: int
    notices: tuple[str, ...]


def names() -> list[str]:
    """Every sandbox that has a review."""
    root = _root()
    return sorted(
        entry.name
        for entry in root.iterdir()
        if NAME_PATTERN.fullmatch(entry.name) and (entry / _META).exists()
    )


class Review:
    """What is kept of the changes of the sandbox `name`."""

    def __init__(self, name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            raise ReviewError(
                f"“{printable(name, 60)}” is not a name for a sandbox.",
                hint="See those that have changes: corral diff",
            )
        self.name = name
        self.folder = _root() / name

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

    def exists(self) -> bool:
        """Whether there is a snapshot."""
        return (self.folder / _META).exists()

    def meta(self) -> Meta:
        """Of which folder it is. Raises ReviewError."""
        try:
            return msgspec.json.decode((self.folder / _META).read_bytes(), type=Meta)
        except (OSError, ValueError) as error:
            raise ReviewError(
                f"{self.folder / _META} cannot be read: {error}.",
                hint=f"Throw the changes away: corral discard {self.name}",
            ) from error

    def agent(self, number: int) -> Path:
        """The folder of an agent's snapshot. Raises ReviewError."""
        agents = self.meta().agents
        if number not in agents:
            raise ReviewError(
                f"the sandbox {self.name} has no agent {number} under review.",
                hint=f"There are: {', '.join(map(str, agents))}.",
            )
        return self.folder / str(number)

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
                stack.enter_context(self._running())
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
                    "another name: --name NAME",
                )
            notices += self._going_on(pending)
        fresh = {number: name for number, name in agents.items() if number not in pending}
        left, renamed = self._make(workspace, hidden, fresh, pending)
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

    def _make(
        self,
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
        if str(self.folder).startswith(workspace.rstrip("/") + "/"):
            raise ReviewError(
                f"the snapshot would be in the workspace: {self.folder}.",
                hint="Set CORRAL_STATE_DIR to a folder outside of it.",
            )
        fresh = self.folder.with_name(f".{self.name}.new")
        try:
            with contextlib.suppress(FileNotFoundError):  # left by one that was killed
                remove_tree(fresh)
            self._retire(fresh, workspace, agents, kept)
            left, renamed = make_all(workspace, fresh, hidden, agents)
            meta = Meta(
                workspace=workspace,
                created=time.time(),
                agents=tuple(sorted({*agents, *kept})),
            )
            crash_point("snapshot-made")
            if kept:
                self._replace(fresh, agents)
            crash_point("snapshot-placed")
            write_atomically(
                (self.folder if kept else fresh) / _META, msgspec.json.encode(meta), mode=0o600
            )
            if not kept:
                fresh.rename(self.folder)
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
        self, fresh: Path, workspace: str, agents: Collection[int], kept: Collection[int]
    ) -> None:
        """Move snapshots without changes out of the review, into the new folder `fresh` if they can
        be of use there. From then on it has only what is kept.
        """
        if not self.exists():
            fresh.mkdir(mode=0o700)
            return
        meta = self.meta()
        old = [number for number in meta.agents if number not in kept]
        useful = {number for number in old if number in agents and meta.workspace == workspace}
        if kept:
            fresh.mkdir(mode=0o700)
            meta = msgspec.structs.replace(meta, agents=tuple(sorted(kept)))
            write_atomically(self.folder / _META, msgspec.json.encode(meta), mode=0o600)
            for number in old:
                (self.folder / str(number)).rename(fresh / str(number))
        else:
            self.folder.rename(fresh)
            (fresh / _META).unlink()
        for entry in fresh.iterdir():
            if entry.name not in {str(number) for number in useful}:
                self._gone(entry)
        crash_point("snapshot-retired")
        self._sweep()

    def _gone(self, place: Path) -> None:
        """Have it removed by the next sweep. Raises OSError."""
        place.rename(self.folder.with_name(f"{_GONE}{secrets.token_hex(4)}"))

    def _replace(self, fresh: Path, agents: Collection[int]) -> None:
        """Put snapshots into a review that there is."""
        for number in agents:
            place = self.folder / str(number)
            with contextlib.suppress(FileNotFoundError):  # left by one that was killed
                self._gone(place)
            (fresh / str(number)).rename(place)
        fresh.rmdir()
        self._sweep()

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
        with self.changing(), self._running():
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
            write_atomically(self.folder / _META, msgspec.json.encode(meta), mode=0o600)
            self._gone(self.folder / str(agent))
            self._sweep()
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
            self._gone(self.folder)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what is gone, also what a command that was killed has left of it."""
        with locked(self.folder.with_name(".sweeping"), wait=False) as mine:
            for folder in self.folder.parent.glob(f"{_GONE}*") if mine else ():
                with contextlib.suppress(FileNotFoundError):
                    remove_tree(folder)

    # Locks

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else makes, applies or throws away meanwhile."""
        with locked(self._lock("changing"), wait=True):
            yield

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with locked(self._lock("running"), wait=False) as mine:
            if not mine:
                raise SandboxStateError(
                    f"a sandbox {self.name} works on its snapshot.",
                    hint="Wait until it has ended or stop it, or give another one another name: "
                    "--name NAME",
                )
            yield

    def is_running(self) -> bool:
        """Whether a sandbox works on it now."""
        with locked(self._lock("running"), wait=False) as mine:
            return not mine

    def _lock(self, what: str) -> Path:
        return self.folder.with_name(f".{self.name}.{what}")


def _count(number: int) -> str:
    return f"{number:,} change{'' if number == 1 else 's'}"


def _root() -> Path:
    root = state_dir() / "reviews"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ReviewError(
            f"the folder {root} cannot be made: {error.strerror}.",
            hint="Set CORRAL_STATE_DIR to a folder that you can write.",
        ) from error
    return root
