"""A profile as it holds on one machine: which call, under which conditions, gets which answer.

Pure. `table` decides what applies there (Docker's includes and excludes) and what a mode changes;
`answer` says what becomes of a call.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...errors import ConfigError
from .profile import EPERM, Action, Argument, Only, Profile
from .target import Mode, Target

# Names of Go's GOARCH and of the OCI -> uname(2)'s, for what corral runs on.
ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
OCI_ARCHES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_SUB_ARCHES = {
    "x86_64": ("SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_ARM",),
}


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
    """A profile on a target. sub_arches: OCI names of those whose programs may run, too."""

    default: Answer
    entries: tuple[Entry, ...]
    sub_arches: tuple[str, ...] = ()


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
            entries += [Entry(name, answer, part) for part in _alternatives(rule.args or ())]
    held = _in_mode(default, mode, default=True)
    return Table(held, _widened(entries, held, needed), _sub(profile, target))


def _widened(entries: list[Entry], default: Answer, needed: Iterable[str]) -> tuple[Entry, ...]:
    """With the needed calls that nothing allows; what is allowed on conditions stays so."""
    named = {entry.name for entry in entries}
    allowed = {entry.name for entry in entries if entry.answer.allows}
    if default.allows:
        always = {entry.name for entry in entries if not entry.conditions}
        allowed |= {name for name in needed if name not in named or name not in always}
    missing = set(needed) - allowed
    kept = [entry for entry in entries if entry.name not in missing]
    return (*(_needed(name) for name in sorted(missing)), *kept)


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


def _alternatives(args: Sequence[Argument]) -> list[tuple[Argument, ...]]:
    """Conditions on one argument twice are alternatives (as runc has it), others hold together."""
    indices = [argument.index for argument in args]
    if len(indices) != len(set(indices)):
        return [(argument,) for argument in args]
    return [tuple(args)]


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


def _sub(profile: Profile, target: Target) -> tuple[str, ...]:
    """The further system call tables that a profile opens, of those that this machine has."""
    known = _SUB_ARCHES.get(target.machine, ())
    named = set(profile.architectures or ())
    for entry in profile.archMap or ():
        if entry.architecture == OCI_ARCHES.get(target.machine):
            named |= set(entry.subArchitectures or ())
    return tuple(name for name in known if name in named)


def answer(where: Table, name: str, arguments: Sequence[int]) -> Answer:
    """What becomes of a call. A rule without conditions counts before all others.

    So libseccomp has it: seccomp_rule_add(3) drops what is narrower than a rule that is there.
    """
    entries = [entry for entry in where.entries if entry.name == name]
    for entry in entries:
        if not entry.conditions:
            return entry.answer
    for entry in entries:
        if all(holds(condition, arguments) for condition in entry.conditions):
            return entry.answer
    return where.default


def holds(condition: Argument, arguments: Sequence[int]) -> bool:
    """Whether a condition is met; a missing argument is 0."""
    value = arguments[condition.index] if condition.index < len(arguments) else 0
    match condition.op:
        case "SCMP_CMP_NE":
            return value != condition.value
        case "SCMP_CMP_LT":
            return value < condition.value
        case "SCMP_CMP_LE":
            return value <= condition.value
        case "SCMP_CMP_EQ":
            return value == condition.value
        case "SCMP_CMP_GE":
            return value >= condition.value
        case "SCMP_CMP_GT":
            return value > condition.value
        case "SCMP_CMP_MASKED_EQ":
            return value & condition.value == condition.valueTwo
