"""The smallest allow list that would have permitted what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from .names import BadName, parse
from .presets import presets
from .rules import parse_rules, rule_text


class Reached(Struct, frozen=True, kw_only=True):
    """A connection that was tried. reason: "" where it worked; denied: by what cannot be allowed
    by its name alone (a private address, say), or because it was another name than said.
    """

    name: str
    port: int
    denied: bool = False
    reason: str = ""
    size: int = 0


class Line(Struct, frozen=True, kw_only=True):
    """An entry of the list. covers: the hosts that were seen, as rules. count: connections; size:
    bytes both ways.
    """

    rule: str
    covers: tuple[str, ...]
    count: int
    size: int


class Proposal(Struct, frozen=True, kw_only=True):
    """The list, and what is not on it, with the reason."""

    allow: tuple[Line, ...]
    left_out: tuple[tuple[str, str], ...]


def propose(seen: Iterable[Reached], *, ports: Sequence[int] = (80, 443)) -> Proposal:
    """The smallest list for what was seen: each host with its port, or a preset of which at least
    half of the hosts were seen. ports: those that a rule without a port is for.
    """
    counts: dict[str, tuple[int, int]] = {}
    left_out: dict[str, str] = {}
    for each in seen:
        try:
            host = parse(each.name).text
        except BadName:
            left_out.setdefault(each.name, "not a host name")
            continue
        text = rule_text(host, each.port)
        if each.denied:
            left_out.setdefault(text, each.reason)
        else:
            count, size = counts.get(text, (0, 0))
            counts[text] = (count + 1, size + each.size)
    lines = []
    rest = dict(counts)
    for name, hosts in _presets(ports):
        covered = tuple(sorted(set(rest) & set().union(*hosts)))
        if covered and sum(bool(host & set(rest)) for host in hosts) * 2 >= len(hosts):
            lines.append(_line(f"@{name}", covered, counts))
            for text in covered:
                del rest[text]
    lines += [_line(text, (text,), counts) for text in sorted(rest)]
    kept = tuple((text, why) for text, why in sorted(left_out.items()) if text not in counts)
    return Proposal(allow=tuple(lines), left_out=kept)


def _presets(ports: Sequence[int]) -> list[tuple[str, list[set[str]]]]:
    """Each preset with the rules that each of its hosts stands for, the smallest first."""
    found = []
    for name in presets():
        hosts: dict[str, set[str]] = {}
        for rule in parse_rules(f"@{name}"):
            for port in ports if rule.port is None else (rule.port,):
                hosts.setdefault(rule.host, set()).add(rule_text(rule.host, port))
        found.append((name, list(hosts.values())))
    return sorted(found, key=lambda each: len(each[1]))


def _line(rule: str, covered: tuple[str, ...], counts: dict[str, tuple[int, int]]) -> Line:
    return Line(
        rule=rule,
        covers=covered,
        count=sum(counts[text][0] for text in covered),
        size=sum(counts[text][1] for text in covered),
    )
