"""A profile as it holds on one machine: which call, under which conditions, gets which answer.

Pure. `table` decides what applies there (Docker's includes and excludes) and what a mode changes;
`ruling` says which rules count for a call, `answer` what becomes of one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...errors import ConfigError
from .conditions import alternatives, holds
from .profile import EPERM, Action, Argument, Only, Profile
from .target import Mode, Target

# Names of Go's GOARCH -> uname(2)'s, for what corral runs on.
ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}


class Kind(enum.Enum):
    """What the kernel does with a call, from the strictest on."""

    KILL_PROCESS = "kill the process"
    KILL_THREAD = "kill the thread"
    TRAP = "send SIGSYS"
    ERRNO = "refuse"
    LOG = "allow and log"
    ALLOW = "allow"


class Answer(Struct, frozen=True):
    """What a call gets. errno: with ERRNO."""

    kind: Kind
    errno: int = 0

    @property
    def allows(self) -> bool:
        """Whether the call takes place."""
        return self.kind in (Kind.ALLOW, Kind.LOG)


class Entry(Struct, frozen=True):
    """A rule for one call. conditions: of which all hold; none: always."""

    name: str
    answer: Answer
    conditions: tuple[Argument, ...] = ()


class Table(Struct, frozen=True):
    """A profile on a target. default: for calls that no entry is for."""

    default: Answer
    entries: tuple[Entry, ...]

    def of(self, name: str) -> list[Entry]:
        """The entries for a call, as the profile has them."""
        return [entry for entry in self.entries if entry.name == name]


NAMESPACES = 0x7E020000  # the CLONE_NEW* of clone(2): linux/sched.h

_KINDS: dict[Action, Kind] = {
    "SCMP_ACT_KILL": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": Kind.KILL_PROCESS,
    "SCMP_ACT_TRAP": Kind.TRAP,
    "SCMP_ACT_ERRNO": Kind.ERRNO,
    "SCMP_ACT_LOG": Kind.LOG,
    "SCMP_ACT_ALLOW": Kind.ALLOW,
}


def table(
    profile: Profile, target: Target, mode: Mode = "errno", needed: Iterable[str] = ()
) -> Table:
    """What `profile` says on `target`, in `mode`. Raises ConfigError.

    needed: calls that are allowed where it allows them under no condition at all, clone without
    namespaces. Nobody in a jail has a capability that means anything outside it, so a rule for one
    (caps) never counts.
    """
    default = _answer(profile.defaultAction, profile.defaultErrnoRet)
    entries: list[Entry] = []
    for rule in profile.rules:
        if not _counts(rule.includes, rule.excludes, target):
            continue
        answer = _in_mode(_answer(rule.action, rule.errnoRet), mode)
        for name in rule.all_names:
            entries += [Entry(name, answer, part) for part in alternatives(rule.args or ())]
    held = _in_mode(default, mode, default=True)
    return Table(held, _widened(entries, held, needed))


def _widened(entries: list[Entry], default: Answer, needed: Iterable[str]) -> tuple[Entry, ...]:
    """With the needed calls that nothing allows; what is allowed on conditions stays so."""
    named: dict[str, list[Entry]] = {}
    for entry in entries:
        named.setdefault(entry.name, []).append(entry)
    missing = {name for name in needed if not _possible(ruling(named.get(name, ())), default)}
    kept = [entry for entry in entries if entry.name not in missing]
    return (*(_needed(name) for name in sorted(missing)), *kept)


def _possible(rules: Sequence[Entry], default: Answer) -> bool:
    """Whether a call is allowed under any condition. rules: as `ruling` has them."""
    open_end = not rules or bool(rules[-1].conditions)
    return any(rule.answer.allows for rule in rules) or (open_end and default.allows)


def _needed(name: str) -> Entry:
    conditions: tuple[Argument, ...] = ()
    if name == "clone":
        conditions = (Argument(index=0, value=NAMESPACES, op="SCMP_CMP_MASKED_EQ"),)
    return Entry(name, Answer(Kind.ALLOW), conditions)


def _answer(action: Action, errno: int | None) -> Answer:
    kind = _KINDS[action]
    return Answer(kind, EPERM if errno is None else errno) if kind is Kind.ERRNO else Answer(kind)


def _in_mode(answer: Answer, mode: Mode, *, default: bool = False) -> Answer:
    """log: what is refused takes place, and is logged. kill: it ends the process.

    Another errno than EPERM means that a call is absent, which programs expect and can do without
    (clone3); so it stays, but for calls of which the profile says nothing.
    """
    if answer.allows or mode == "errno":
        return answer
    if mode == "log":
        return Answer(Kind.LOG)
    absent = answer.kind is Kind.ERRNO and answer.errno != EPERM
    return answer if absent and not default else Answer(Kind.KILL_PROCESS)


def _counts(includes: Only | None, excludes: Only | None, target: Target) -> bool:
    if includes is not None:
        if includes.caps:
            return False
        if includes.arches is not None and target.machine not in _machines(includes.arches):
            return False
        if includes.minKernel is not None and target.kernel < _version(includes.minKernel):
            return False
    if excludes is not None:
        if excludes.arches is not None and target.machine in _machines(excludes.arches):
            return False
        if excludes.minKernel is not None and target.kernel >= _version(excludes.minKernel):
            return False
    return True


def _machines(names: Iterable[str]) -> set[str]:
    return {ARCHES.get(name, name) for name in names}


def _version(text: str) -> tuple[int, int]:
    parts = text.split(".")
    try:
        return (int(parts[0]), int(parts[1]) if len(parts) > 1 else 0)
    except ValueError as error:
        raise ConfigError(f"the seccomp profile has a minKernel that is none: {text}.") from error


_STRICTNESS = {kind: place for place, kind in enumerate(Kind)}


def ruling(entries: Iterable[Entry]) -> list[Entry]:
    """Entries for one call in the order in which they count: the first that holds is the answer.

    The strictest comes first, so that no order of a profile's rules opens what one of them closes;
    of the same kind the earlier. What comes after an entry without conditions never counts.
    """
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: _STRICTNESS[entry.answer.kind]):
        found.append(entry)
        if not entry.conditions:
            break
    return found


def answer(where: Table, name: str, arguments: Sequence[int]) -> Answer:
    """What becomes of a call: what the strictest rule says that holds, else the default."""
    for entry in ruling(where.of(name)):
        if all(holds(condition, arguments) for condition in entry.conditions):
            return entry.answer
    return where.default
