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
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ReviewError, SandboxStateError
from ..host.copies import remove_tree
from ..paths import state_dir
from ..spec.files import write_atomically
from ..spec.text import printable
from ..spec.values import NAME_PATTERN
from .locks import locked

META = "review.json"
_GONE = ".gone-"


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Of which folder a review is. created: seconds since 1970. agents: their numbers."""

    workspace: str
    created: float
    agents: tuple[int, ...] = (1,)
    version: int = 1


def names() -> list[str]:
    """Every sandbox that has a review."""
    root = _root()
    return sorted(
        entry.name
        for entry in root.iterdir()
        if NAME_PATTERN.fullmatch(entry.name) and (entry / META).exists()
    )


class Shelf:
    """The folder of the sandbox `name`: what is in it, and who may change it."""

    def __init__(self, name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            raise ReviewError(
                f"“{printable(name, 60)}” is not a name for a sandbox.",
                hint="See those that have changes: corral diff",
            )
        self.name = name
        self.folder = _root() / name

    def exists(self) -> bool:
        """Whether there is a snapshot."""
        return (self.folder / META).exists()

    def meta(self) -> Meta:
        """Of which folder it is. Raises ReviewError."""
        try:
            return msgspec.json.decode((self.folder / META).read_bytes(), type=Meta)
        except (OSError, ValueError) as error:
            raise ReviewError(
                f"{self.folder / META} cannot be read: {error}.",
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

    def write_meta(self, meta: Meta, folder: Path | None = None) -> None:
        """Write it, into a folder that becomes this one if one is named. Raises OSError."""
        place = (folder or self.folder) / META
        write_atomically(place, msgspec.json.encode(meta), mode=0o600)

    def remove_later(self, place: Path) -> None:
        """Have it removed by the next sweep. Raises OSError."""
        place.rename(self.folder.with_name(f"{_GONE}{secrets.token_hex(4)}"))

    def sweep(self) -> None:
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
    def running(self) -> Iterator[None]:
        with locked(self._lock("running"), wait=False) as mine:
            if not mine:
                raise SandboxStateError(
                    f"a sandbox {self.name} works on its snapshot.",
                    hint="Wait until it has ended or stop it, or give another one another name: "
                    "corral up NAME, corral run --name NAME",
                )
            yield

    def is_running(self) -> bool:
        """Whether a sandbox works on it now."""
        with locked(self._lock("running"), wait=False) as mine:
            return not mine

    def _lock(self, what: str) -> Path:
        return self.folder.with_name(f".{self.name}.{what}")


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
