"""Making snapshots: new ones, from an earlier one, or from that of another agent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..host.copies import copy_file, copy_folder, remove_tree
from . import origin, refs
from .model import NONE, Found, Was
from .origin import Copied, Reuse
from .pack import Pack
from .snapshot import PACK, WORK, Base, write_base
from .tree import file_in, opened, scan, signature

_TRASH = "trash"
_THREADS = 4

Hidden = Callable[[str, bool], bool]


@dataclass
class _Made:
    """A snapshot that nobody has worked on, not yet written down.

    copied: files of the user's. left: what is not in it. ours: files that we wrote.
    """

    folder: Path
    copied: dict[str, Copied]
    left: list[str]
    ours: dict[str, Copied] = field(default_factory=dict)


def make_all(
    source: str, folder: Path, hidden: Hidden | None, agents: Mapping[int, str]
) -> tuple[list[str], dict[int, str]]:
    """Make snapshots of `source` in `folder`, for agents by their numbers.

    Those of earlier ones that are in the folder are brought up to date, where that can be told.
    agents: for each a branch of git's for it to be on, or "", so that what is committed there is
    told apart. Returns what is not in them, and the branches that are others than were asked for.
    Raises OSError, ReviewError.
    """
    made: dict[int, _Made] = {}
    for number in agents:
        place = folder / str(number)
        first = next(iter(made.values()), None)
        made[number] = (
            _renewed(source, place, hidden)
            or (first and _twin(first, place))
            or _new(source, place, hidden)
        )
    renamed: dict[int, str] = {}
    for number, branch in agents.items():  # one by one: they may share a pack
        name = _start_branch(made[number], branch)
        if name not in ("", branch):
            renamed[number] = name
    with ThreadPoolExecutor(_THREADS) as pool:  # one write of the disk's journal syncs all
        done = [pool.submit(_finish, source, each, hidden) for each in made.values()]
    left: dict[str, None] = {}
    for number, each in zip(agents, done, strict=True):
        each.result()
        left |= dict.fromkeys(made[number].left)
    return list(left), renamed


def make(source: str, folder: Path, hidden: Hidden | None, branch: str = "") -> None:
    """Make one snapshot of `source` in the new folder `folder`. Raises OSError, ReviewError."""
    made = _new(source, folder, hidden)
    _start_branch(made, branch)
    _finish(source, made, hidden)


def _new(source: str, folder: Path, hidden: Hidden | None) -> _Made:
    folder.mkdir(mode=0o700)
    with Pack.opened(folder / PACK, write=True) as pack:
        found: dict[str, Copied] = {}
        keep = _keeper(pack, found, time.time())
        left = copy_folder(source, str(folder / WORK), hidden, keep)
    return _Made(folder, found, left)


def _keeper(
    pack: Pack, found: dict[str, Copied], begun: float
) -> Callable[[str, os.stat_result, int], None]:
    """Puts what is copied into a pack, and notes it."""

    def keep(path: str, status: os.stat_result, target: int) -> None:
        settled = origin.is_settled(status, begun)
        found[path] = Copied(*pack.add(target), signature(status), settled)

    return keep


def _renewed(source: str, folder: Path, hidden: Hidden | None) -> _Made | None:
    """The snapshot in `folder` as a new one would be; None, and none, where that cannot be."""
    if not folder.exists():
        return None
    try:
        files = origin.read(folder, source)
        if origin.worth_it(files, (folder / PACK).stat().st_size):
            return _brought_up(source, folder, hidden, files)
    except (OSError, ReviewError):  # whatever it is, a new one has it not
        pass
    remove_tree(folder)
    return None


def _brought_up(
    source: str, folder: Path, hidden: Hidden | None, files: Mapping[str, Copied]
) -> _Made:
    begun = time.time()
    for entry in folder.iterdir():
        if entry.name not in (WORK, PACK):
            entry.unlink()
    (folder / _TRASH).mkdir(mode=0o700)
    with (
        Pack.opened(folder / PACK, write=True) as pack,
        opened(folder / WORK) as work,
        opened(folder / _TRASH) as trash,
    ):
        device = Path(source).stat().st_dev
        reuse = Reuse(files, scan(work), pack, device, begun, trash)
        found: dict[str, Copied] = {}
        keep = _keeper(pack, found, begun)
        left = copy_folder(source, str(folder / WORK), hidden, keep, reuse)
    remove_tree(folder / _TRASH)
    return _Made(folder, found | reuse.stayed, left)


def _twin(first: _Made, folder: Path) -> _Made | None:
    """A copy of a snapshot that nobody has worked on; None where it cannot be read again."""
    folder.mkdir(mode=0o700)
    try:
        left = copy_folder(str(first.folder / WORK), str(folder / WORK))
        if not left:
            _share(first.folder / PACK, folder / PACK)
            return _Made(folder, dict(first.copied), first.left)
    except PermissionError:  # of modes of the user's that shut us out
        pass
    remove_tree(folder)
    return None


def _share(pack: Path, other: Path) -> None:
    try:
        other.hardlink_to(pack)
    except OSError:  # a file system that has no such links
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(pack, "rb") as source, open(os.open(other, flags, 0o600), "wb") as target:
            copy_file(source.fileno(), target.fileno())


def _start_branch(made: _Made, branch: str) -> str:
    """Have a snapshot on a branch, unless that is ""; its name."""
    if not branch:
        return ""
    with Pack.opened(made.folder / PACK, write=True) as pack, opened(made.folder / WORK) as work:
        name, written = refs.start_branch(work, branch)
        for path in written:
            with file_in(work, path) as fd:
                made.ours[path] = Copied(*pack.add(fd), NONE, settled=False)
    return name


def _finish(source: str, made: _Made, hidden: Hidden | None) -> None:
    """Write down how a snapshot is."""
    with opened(made.folder / WORK) as root:
        found = scan(root)
    known = _known(found, made.copied | made.ours)
    names = {}
    for path, entry in found.items():
        copied = known.get(path)
        names[path] = Was(
            path=os.fsencode(path),
            kind=entry.kind,
            mode=entry.mode,
            size=copied.size if copied else entry.size,
            offset=copied.offset if copied else 0,
            link=os.fsencode(entry.link),
            here=copied.here if copied else NONE,
            work=entry.signature,
            hidden=hidden is not None and hidden(path, entry.kind == "folder"),
        )
    write_base(made.folder, Base(names, made.left))
    files = {
        path: msgspec.structs.replace(copied, work=found[path].signature)
        for path, copied in known.items()
        if path not in made.ours
    }
    origin.write(made.folder, source, files)


def _known(found: Mapping[str, Found], copied: Mapping[str, Copied]) -> dict[str, Copied]:
    """What is known of each file that was copied, by all of its names."""
    files = [(path, entry) for path, entry in found.items() if entry.kind == "file"]
    by_inode = {entry.signature[0]: copied[path] for path, entry in files if path in copied}
    known = {}
    for path, entry in files:
        one = copied.get(path) or by_inode.get(entry.signature[0])
        if one is not None:  # else it is masked, or cannot be read
            known[path] = one
    return known
