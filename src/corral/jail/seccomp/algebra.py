"""Profiles compared, put together, and explained. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ...errors import ConfigError
from .conditions import Conditions, alternatives, apart
from .profile import Argument, Profile, Rule
from .table import NAMESPACES, Answer, Entry, Kind, Table, ruling, table
from .target import Target

# Calls of which an argument decides, so a recorded profile says which were used: (index, values).
_BY_VALUE = {"socket": 0, "personality": 0, "ptrace": 0}
_ALLOWING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
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
    the machine (includes, excludes) stay, and so do refusals with an answer of their own, but for
    those of what another profile allows.
    """
    for label, profile in profiles:
        if profile.defaultAction in _ALLOWING:
            raise ConfigError(
                f"{label} allows by default, so it cannot be merged.",
                hint="Profiles that name what they allow can be, as `seccomp record` writes.",
            )
    always = {name for _label, profile in profiles for name in _always(profile)}
    rules: dict[Rule, None] = {}
    for label, profile in profiles:
        others = [r for _label, other in profiles if other != profile for r in other.rules]
        for rule in profile.rules:
            names = [name for name in rule.all_names if name not in always]
            if rule.action not in _ALLOWING and not _never(rule):
                names = [n for n in names if _stays(n, rule, profile.rules, others, label)]
            if names:
                rules[replace(rule, name="", names=tuple(names))] = None
    first = profiles[0][1]
    plain = [Rule(names=tuple(sorted(always)), action="SCMP_ACT_ALLOW")] if always else []
    return Profile(
        defaultAction=first.defaultAction,
        defaultErrnoRet=first.defaultErrnoRet,
        archMap=first.archMap,
        architectures=first.architectures,
        syscalls=(*plain, *sorted(rules, key=lambda rule: rule.action not in _ALLOWING)),
    )


def _never(rule: Rule) -> bool:
    """Whether it counts on no machine: nobody in a jail has a capability."""
    return rule.includes is not None and bool(rule.includes.caps)


def _always(profile: Profile) -> set[str]:
    """What it allows on every machine and under no condition."""
    allowed = {
        name
        for rule in profile.rules
        for name in rule.all_names
        if rule.action in _ALLOWING
        and not (rule.args or rule.includes is not None or rule.excludes is not None)
    }
    refusals = [rule for rule in profile.rules if rule.action not in _ALLOWING]
    return allowed - {name for rule in refusals if not _never(rule) for name in rule.all_names}


def _stays(
    name: str, refusal: Rule, own: Sequence[Rule], others: Sequence[Rule], label: str
) -> bool:
    """Whether a refusal takes away nothing that another profile allows."""
    if not any(_allows_some(name, refusal, rule) for rule in others):
        return True
    if any(_allows_some(name, refusal, rule) for rule in own):
        raise ConfigError(
            f"{label} cannot be merged: of {name[:40]} it allows what it refuses under further "
            "conditions, and another profile allows some of that.",
            hint=f"Write conditions for {name[:40]} of which only one can hold at a time.",
        )
    return False


def _allows_some(name: str, refusal: Rule, rule: Rule) -> bool:
    """Whether `rule` can allow a call that `refusal` refuses."""
    return (
        rule.action in _ALLOWING
        and name in rule.all_names
        and not _never(rule)
        and any(
            not apart(one, two)
            for one in alternatives(refusal.args or ())
            for two in alternatives(rule.args or ())
        )
    )


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
    """no, yes, or the conditions that decide."""
    rules = ruling(where.of(name))
    last = rules.pop().answer if rules and not rules[-1].conditions else where.default
    allowing = [rule for rule in rules if rule.answer.allows]
    refusing = [rule for rule in rules if not rule.answer.allows]
    if last.allows:
        return f"unless {_any(refusing)}" if refusing else "yes"
    if not allowing:
        return "no"
    # Other refusals say only how it is refused.
    telling = [
        one for one in refusing if not all(apart(one.conditions, a.conditions) for a in allowing)
    ]
    return f"if {_any(allowing)}" + (f" unless {_any(telling)}" if telling else "")


def _any(entries: Iterable[Entry]) -> str:
    return " or ".join(sorted({_text(entry.conditions) for entry in entries}))


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


def _text(conditions: Conditions) -> str:
    parts = []
    for part in conditions:
        if part.op == "SCMP_CMP_MASKED_EQ":
            parts.append(f"argument {part.index} & {part.value:#x} == {part.valueTwo:#x}")
        else:
            parts.append(f"argument {part.index} {_SIGNS[part.op]} {part.value:#x}")
    return " and ".join(parts)


def explain(where: Table, name: str) -> list[str]:
    """What a profile says of a call, a line each rule; of these the first that holds counts."""
    rules = ruling(where.of(name))
    if not rules:
        return [f"{describe(where.default)}: the profile does not name it"]
    lines = [
        describe(rule.answer) + (f" if {_text(rule.conditions)}" if rule.conditions else "")
        for rule in rules
    ]
    if rules[-1].conditions:
        lines.append(f"{describe(where.default)} otherwise")
    elif len(rules) > 1:
        lines[-1] += " otherwise"
    return lines
