"""A sandbox that is reviewed: what it works on in place of the workspace, and what is said then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import msgspec

from ..errors import ReviewError
from ..spec import Spec, mask_matcher
from ..spec.text import printable
from .showing import Shown
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
        agents = tuple(
            msgspec.structs.replace(agent, copy=begun.works.get(spec.snapshot(agent)))
            for agent in spec.agents
        )
        if not spec.several:
            workspace = msgspec.structs.replace(workspace, copy=agents[0].copy)
        spec = msgspec.structs.replace(spec, workspace=workspace, agents=agents)
        yield spec, begun.notices


def _branches(spec: Spec) -> dict[int, str]:
    """The branch of each snapshot that the agents of a spec work on; "" for the user's own."""
    branches = dict.fromkeys(spec.snapshots, "")
    for agent in spec.agents:
        if agent.workspace == "own" and agent.number in branches:
            usual = f"corral/{spec.name}/{agent.number}" if spec.several else ""
            branches[agent.number] = agent.branch or usual
    return branches


def summary(spec: Spec) -> Iterator[tuple[str, str]]:
    """(level, sentence) of what a sandbox under review has left, and how to go on."""
    if not spec.reviewed:
        return
    name = spec.name
    review = Review(name)
    changed = False
    for number in spec.snapshots:
        try:
            shown, in_git = review.both_changes(number)
        except ReviewError as error:
            yield "warning", error.message
            continue
        who = f"agent {number}: " if spec.several else ""
        for level, text in _of_one(name, number if spec.several else 0, shown, in_git):
            yield level, who + text
        changed = changed or bool(shown)
    if changed:
        yield (
            "info",
            f"go on with: corral diff {name} | corral apply {name} | corral discard {name}",
        )


def _of_one(
    name: str, number: int, shown: Sequence[Shown], in_git: int
) -> Iterator[tuple[str, str]]:
    """The same of one agent. number: 0 where there is only one."""
    chosen = f"{name} --agent {number}" if number else name
    if in_git:
        files = "1 file" if in_git == 1 else f"{in_git:,} files"
        yield (
            "info",
            f"{files} of git's changed, too (commits, the index): neither shown nor applied "
            f"unless you name them: corral diff {chosen} .git",
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
