"""Profiles compared, put together, and explained. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ...errors import ConfigError
from .profile import Argument, Profile, Rule
from .table import NAMESPACES, Answer, Entry, Kind, Table, table
from .target import Target

# Calls of which an argument decides, so a recorded profile says which were used: (index, values).
_BY_VALUE = {"socket": 0, "personality": 0, "ptrace": 0}
ENOSYS = 38


class Call(Struct, frozen=True):
    """A call that was made. arguments: all six, as 64 bits."""

    name: str
    arguments: tuple[int, ...]


class Difference(Struct, frozen=True, kw_only=True):
    """Of two profiles: calls that only one allows, and those for which conditions differ."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    conditions: tuple[str, ...]
    default: tuple[str, str] | None


def smallest(calls: Iterable[Call], comment: str = "") -> Profile:
    """The profile that allows these calls and no other; the rest is absent (ENOSYS).

    Of socket, personality and ptrace only with the first arguments that were seen, of clone only
    without namespaces unless there were some.
    """
    seen = {Call(call.name, telling(call)) for call in calls}
    plain = tuple(
        sorted({call.name for call in seen if not call.arguments and call.name[0] != "["})
    )
    rules = [Rule(comment=comment, names=plain, action="SCMP_ACT_ALLOW")] if plain else []
    if "clone" in {call.name for call in seen} and "clone" not in plain:
        rules.append(
            Rule(
                names=("clone",),
                action="SCMP_ACT_ALLOW",
                args=(Argument(index=0, value=NAMESPACES, op="SCMP_CMP_MASKED_EQ"),),
            )
        )
    rules += [
        Rule(
            names=(call.name,),
            action="SCMP_ACT_ALLOW",
            args=(Argument(index=0, value=call.arguments[0], op="SCMP_CMP_EQ"),),
        )
        for call in sorted(seen, key=lambda call: (call.name, call.arguments))
        if call.name in _BY_VALUE
    ]
    return Profile(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=ENOSYS, syscalls=tuple(rules))


def telling(call: Call) -> tuple[int, ...]:
    """The arguments that a profile is to name; none for most calls."""
    if call.name in _BY_VALUE:
        return call.arguments[:1]
    if call.name == "clone" and not call.arguments[0] & NAMESPACES:
        return (0,)
    return ()


def merge(profiles: Sequence[tuple[str, Profile]]) -> Profile:
    """The profile that allows what any of these does. Raises ConfigError.

    Only profiles that refuse by default can be: what others allow cannot be listed. Conditions on
    the machine (includes, excludes) and refusals with an answer of their own stay.
    """
    rules: dict[Rule, None] = {}
    first = profiles[0][1]
    always = {
        name
        for _label, profile in profiles
        for rule in profile.rules
        for name in rule.all_names
        if _always(rule)
    }
    for label, profile in profiles:
        if profile.defaultAction in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
            raise ConfigError(
                f"{label} allows by default, so it cannot be merged.",
                hint="Profiles that name what they allow can be, as `seccomp record` writes.",
            )
        for rule in profile.rules:
            left = tuple(name for name in rule.all_names if name not in always)
            if left and not _always(rule):
                rules[replace(rule, name="", names=left)] = None
    # What one refuses by name and another allows is allowed: its refusals must not come first.
    allowed = [rule for rule in rules if rule.action == "SCMP_ACT_ALLOW"]
    names = {name for rule in allowed if not rule.args for name in rule.names}
    others = [
        rule for rule in rules if rule.action != "SCMP_ACT_ALLOW" and not names & set(rule.names)
    ]
    plain = [Rule(names=tuple(sorted(always)), action="SCMP_ACT_ALLOW")] if always else []
    return Profile(
        defaultAction=first.defaultAction,
        defaultErrnoRet=first.defaultErrnoRet,
        archMap=first.archMap,
        architectures=first.architectures,
        syscalls=(*plain, *allowed, *others),
    )


def _always(rule: Rule) -> bool:
    unconditional = not rule.args and rule.includes is None and rule.excludes is None
    return unconditional and rule.action == "SCMP_ACT_ALLOW"


def difference(first: Profile, second: Profile, target: Target) -> Difference:
    """What two profiles let happen on a machine, compared."""
    tables = (table(first, target), table(second, target))
    names = sorted({entry.name for each in tables for entry in each.entries})
    one, two = ([_state(each, name) for name in names] for each in tables)
    triples = list(zip(names, one, two, strict=True))
    defaults = tuple(describe(each.default) for each in tables)
    return Difference(
        only_first=tuple(n for n, a, b in triples if a != "no" and b == "no"),
        only_second=tuple(n for n, a, b in triples if a == "no" and b != "no"),
        conditions=tuple(n for n, a, b in triples if a != b and "no" not in (a, b)),
        default=(defaults[0], defaults[1]) if defaults[0] != defaults[1] else None,
    )


def _state(where: Table, name: str) -> str:
    """no, yes, or the conditions under which a call is allowed."""
    entries = [entry for entry in where.entries if entry.name == name]
    for entry in entries:
        if not entry.conditions:
            return "yes" if entry.answer.allows else "no"
    some = sorted(_conditions(entry) for entry in entries if entry.answer.allows)
    if where.default.allows:
        some.append("else")
    return "; ".join(some) or "no"


def describe(given: Answer) -> str:
    """An answer in words."""
    import errno

    if given.kind is Kind.ERRNO:
        return f"refused ({errno.errorcode.get(given.errno, given.errno)})"
    return {
        Kind.ALLOW: "allowed",
        Kind.LOG: "allowed and logged",
        Kind.TRAP: "answered with SIGSYS",
        Kind.KILL_PROCESS: "ends the process",
        Kind.KILL_THREAD: "ends the thread",
    }[given.kind]


_SIGNS: Mapping[str, str] = {
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">",
}


def _conditions(entry: Entry) -> str:
    parts = []
    for part in entry.conditions:
        if part.op == "SCMP_CMP_MASKED_EQ":
            parts.append(f"argument {part.index} & {part.value:#x} == {part.valueTwo:#x}")
        else:
            parts.append(f"argument {part.index} {_SIGNS[part.op]} {part.value:#x}")
    return " and ".join(parts)


def explain(where: Table, name: str) -> list[str]:
    """What a profile says of a call, a line each rule."""
    entries = [entry for entry in where.entries if entry.name == name]
    lines = [
        f"{describe(entry.answer)}" + (f" if {_conditions(entry)}" if entry.conditions else "")
        for entry in entries
    ]
    if not entries:
        return [f"{describe(where.default)}: the profile does not name it"]
    if all(entry.conditions for entry in entries):
        lines.append(f"{describe(where.default)} otherwise")
    return lines
