"""What a change is judged beside: names, links, git folders, and how else a file is reached."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from ..host import repository
from .compare import Comparison
from .links import lead
from .manifests import is_manifest
from .model import Found
from .names import folded, is_git
from .rules import beginning, by_path, fold_path

# By these git knows a folder of its own (is_git_directory in git's setup.c): HEAD, and objects and
# refs, be they folders, links or programs, there or where commondir says.
_MARKS = ("head", "objects", "refs", "commondir")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What else there is. Paths that are compared are folded, as file systems may do it.

    links: what the links name that are there now, by path. twins: how many names are one when case
    does not count. repositories: folders that git takes for its own. aliases: by which paths a
    place is reached, too, where that counts: by links, or as git's settings say.
    """

    links: Mapping[str, str]
    twins: Mapping[str, int]
    repositories: frozenset[str]
    aliases: Mapping[str, tuple[str, ...]]

    def in_repository(self, path: str) -> bool:
        """Whether a path is a folder that git takes for its own, or lies in one."""
        return any(above in self.repositories for above, _rest in _splits(fold_path(path)))

    def reached_as(self, path: str) -> Iterator[str]:
        """By which other paths one is reached."""
        if self.aliases:
            for above, rest in _splits(fold_path(path)):
                for alias in self.aliases.get(above, ()):
                    yield f"{alias}/{rest}" if rest else alias


def surroundings(comparison: Comparison, here: int) -> Surroundings:
    """Those of a comparison's changes. here: a descriptor of the user's folder.

    The user's repository is read as it is there, not as it is in the snapshot.
    """
    found, base = comparison.found, comparison.base.names
    root = os.readlink(f"/proc/self/fd/{here}")  # noqa: PTH115 - text, as the kernel has it
    before = {path: os.fsdecode(was.link) for path, was in base.items() if was.kind == "link"}
    nested = (path for path in base if path.endswith("/.git"))
    dot_gits = [*_above(Path(root)), *(Path(root, path) for path in nested)]
    obeyed = (each for dot_git in dot_gits for each in repository.obeyed_from(dot_git))
    return among(found, base, before, root, obeyed)


def _above(root: Path) -> Iterator[Path]:
    """The .git that git finds for a folder, if there is one."""
    for folder in (root, *root.parents):
        if os.path.lexists(folder / ".git"):
            yield folder / ".git"
            return


def among(
    found: Mapping[str, Found],
    base: Iterable[str] = (),
    before: Mapping[str, str] | None = None,
    root: str = "",
    obeyed: Iterable[tuple[str, str]] = (),
) -> Surroundings:
    """Those of changes among what was `found`.

    base, before: all names that there were, and the links of them. root: where the user has it.
    obeyed: what git there runs or obeys: as what, and where (absolute).
    """
    links = {path: entry.link for path, entry in found.items() if entry.kind == "link"}
    before = links if before is None else before
    repositories = _repositories({**dict.fromkeys(base), **dict.fromkeys(found)})
    aliases: dict[str, dict[str, None]] = {}

    def note(folder: str, text: str, by: Mapping[str, str], alias: str) -> None:
        where = lead(folder, text, by, root)
        for place in (*where.passed, where.path):
            if place is not None:
                aliases.setdefault(fold_path(place), {})[alias] = None

    surely = Surroundings(links={}, twins={}, repositories=repositories, aliases={})
    for each in (before,) if before == links else (before, links):
        for path, text in each.items():
            alias = None if is_git(path) else _alias(path, surely)
            if alias is not None:
                note(path.rpartition("/")[0], text, each, alias)
    for alias, place in obeyed:
        for path in dict.fromkeys((os.path.normpath(place), os.path.realpath(place))):
            note("", path, before, alias)
    return Surroundings(
        links=links,
        twins=_twins(found),
        repositories=repositories,
        aliases={place: tuple(each) for place, each in aliases.items()},
    )


def _alias(path: str, beside: Surroundings) -> str | None:
    """As what counts that a link of this path leads to; None when it does not."""
    if any(by_path(path)) or beside.in_repository(path):
        return path
    name = path.rpartition("/")[2]
    return name if is_manifest(name) else beginning(path)


def _twins(found: Mapping[str, Found]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path in found:
        key = fold_path(path)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _repositories(names: Iterable[str]) -> frozenset[str]:
    marks: dict[str, set[str]] = {}
    for path in names:
        folder, _, name = path.rpartition("/")
        if (mark := folded(name)) in _MARKS and not is_git(path):
            marks.setdefault(fold_path(folder), set()).add(mark)
    # HEAD of one may be elsewhere: in a folder with a commondir that names this one.
    lent = any("commondir" in there for there in marks.values())
    return frozenset(
        folder
        for folder, there in marks.items()
        if there >= {"head", "commondir"}
        or (there >= {"objects", "refs"} and (lent or "head" in there))
    )


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """For the tree itself, each folder above a path, and the path: (it, what is below it)."""
    parts = path.split("/")
    for n in range(len(parts) + 1):
        yield "/".join(parts[:n]), "/".join(parts[n:])
