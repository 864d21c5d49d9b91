"""A sandbox that is reviewed: what it works on in place of the workspace, and what is said then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ..errors import ReviewError
from ..spec import Spec, mask_matcher
from ..spec.text import printable
from .making import make_all
from .showing import Shown
from .snapshot import WORK
from .store import Review

_SHOWN = 5


@contextlib.contextmanager
def working_copy(spec: Spec) -> Iterator[tuple[Spec, tuple[str, ...]]]:
    """What a sandbox is to be, with a snapshot in place of the workspace if it is to be reviewed.

    Held until it has ended. With it what the user should know. Raises ReviewError,
    SandboxStateError.
    """
    if not spec.reviewed:
        yield spec, ()
        return
    workspace = spec.workspace
    hidden = mask_matcher(workspace.mask) if workspace.mask else None
    with Review(spec.name).begin(workspace.path, hidden, _branches(spec)) as begun:
        yield _on(begun.works, spec), begun.notices


def throw_away_copy(spec: Spec, folder: Path) -> Spec:
    """As `working_copy`, with snapshots in `folder` that nobody reviews. Raises ReviewError."""
    if not spec.reviewed:
        return spec
    workspace = spec.workspace
    hidden = mask_matcher(workspace.mask) if workspace.mask else None
    try:
        make_all(workspace.path, folder, hidden, dict.fromkeys(spec.snapshots, ""))
    except OSError as error:
        raise ReviewError(
            f"no snapshot of {printable(workspace.path)} can be made: {error.strerror or error}."
        ) from error
    return _on({number: str(folder / str(number) / WORK) for number in spec.snapshots}, spec)


def _on(works: Mapping[int, str], spec: Spec) -> Spec:
    """The Spec with its agents on these snapshots, by the numbers of `spec.snapshots`."""
    agents = tuple(
        msgspec.structs.replace(agent, copy=works.get(spec.snapshot(agent)))
        for agent in spec.agents
    )
    workspace = spec.workspace
    if not spec.several:
        workspace = msgspec.structs.replace(workspace, copy=agents[0].copy)
    return msgspec.structs.replace(spec, workspace=workspace, agents=agents)


def _branches(spec: Spec) -> dict[int, str]:
    """The branch of each snapshot that the agents of a spec work on; "" for the user's own."""
    branches = dict.fromkeys(spec.snapshots, "")
    for agent in spec.agents:
        if agent.workspace == "own" and agent.number in branches:
            usual = f"corral/{spec.name}/{agent.number}" if spec.several else ""
            branches[agent.number] = agent.branch or usual
    return branches


def summary(spec: Spec) -> Iterator[tuple[str, str]]:
    """(level, sentence) of what a sandbox under review has left, and how to go on.

    Of several agents one sentence each, and one of all that changed nothing.
    """
    if not spec.reviewed:
        return
    name = spec.name
    review = Review(name)
    changed, idle = False, []
    for number in spec.snapshots:
        try:
            shown, in_git = review.both_changes(number)
        except ReviewError as error:
            yield "warning", error.message
            continue
        if not spec.several:
            yield from _of_the_only(name, shown, in_git)
        elif shown or in_git:
            yield _of_one(name, number, shown, in_git)
        else:
            idle.append(str(number))
        changed = changed or bool(shown)
    if len(idle) > 1 and len(idle) == len(spec.snapshots):
        yield "info", "no agent changed anything in the workspace."
    elif idle:
        agents = f"agents {', '.join(idle)}" if len(idle) > 1 else f"agent {idle[0]}"
        yield "info", f"{agents}: nothing changed in the workspace."
    if changed:
        whose = " --agent N" if len(spec.snapshots) > 1 else ""
        yield (
            "info",
            f"go on with: corral diff {name} | corral apply {name}{whose} | "
            f"corral discard {name}{whose}",
        )


def _of_one(name: str, number: int, shown: Sequence[Shown], in_git: int) -> tuple[str, str]:
    """What one of several agents has left."""
    parts = [f"held back: {counted(shown)}."] if shown else []
    if in_git:
        only, too = ("", ", too") if shown else ("only ", "")
        how = f"corral diff {name} --agent {number} .git"
        parts.append(f"{only}{_files(in_git)} of git's changed{too}: {how}")
    level = "warning" if any(one.dangers for one in shown) else "info"
    return level, f"agent {number}: {' '.join(parts)}"


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _of_the_only(name: str, shown: Sequence[Shown], in_git: int) -> Iterator[tuple[str, str]]:
    """The same where there is one."""
    if in_git:
        yield (
            "info",
            f"{_files(in_git)} of git's changed, too (commits, the index): neither shown nor "
            f"applied unless you name them: corral diff {name} .git",
        )
    if not shown:
        yield "info", "nothing changed in the workspace."
        return
    yield "info", f"held back: {counted(shown)}."
    dangerous = [one for one in shown if one.dangers]
    for one in dangerous[:_SHOWN]:
        reasons = "; ".join(danger.reason for danger in one.dangers[:2])
        yield "warning", f"dangerous: {printable(one.change.path)}: {reasons}"
    if len(dangerous) > _SHOWN:
        yield "warning", f"and {len(dangerous) - _SHOWN:,} more dangerous changes"


def counted(shown: Sequence[Shown]) -> str:
    """How many changes there are, in words."""
    counts = {letter: 0 for letter in "AMD"}
    for one in shown:
        letter = one.change.status
        counts["M" if letter == "T" else letter] += 1
        if one.pair.moved_from:
            counts["D"] += 1
    words = (("A", "new"), ("M", "changed"), ("D", "removed"))
    parts = [f"{counts[letter]:,} {word}" for letter, word in words if counts[letter]]
    dangerous = sum(1 for one in shown if one.dangers)
    conflicts = sum(1 for one in shown if one.standing.state == "conflict")
    if dangerous:
        parts.append(f"{dangerous:,} of them dangerous")
    if conflicts:
        parts.append(f"{conflicts:,} in conflict with yours")
    return ", ".join(parts)
