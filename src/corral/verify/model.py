"""What a probe is, what it comes to, and what several come to together. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

Verdict = Literal["proven", "degraded", "failed"]
Family = Literal[
    "vm", "jail", "exports", "channel", "network", "names", "gateway", "secrets", "host", "limits"
]
# What a probe is carried out on: this host; the engine in a network of its own; any sandbox, also
# one of the project's own; one on a workspace of verify's own; one with servers of verify's own; a
# sandbox that has ended.
Scene = Literal["host", "island", "any", "staged", "network", "ended"]

# Exit statuses of `corral verify`; 2 is a wrong command line.
ALL_PROVEN, SOMETHING_FAILED, ONLY_DEGRADED = 0, 1, 3

_RANK: Mapping[Verdict, int] = {"proven": 0, "degraded": 1, "failed": 2}


class Guarantee(Struct, frozen=True, kw_only=True):
    """One promise of docs/threat-model.md. key: in the code. text: as the page says it."""

    key: str
    section: str
    text: str


class Probe(Struct, frozen=True, kw_only=True):
    """One attack, or one look at what an attack would need.

    id: stable, kebab-case. guarantee: the key of the one that it belongs to. says: one sentence,
    what is tried. cites: published failures of this class (CVE numbers, advisories). last: it
    harms the sandbox that it runs in, so it comes after all others there. run: returns what was
    seen, where the attack was made and refused; raises `Breach` or `NotTried`.
    """

    id: str
    family: Family
    guarantee: str
    says: str
    scene: Scene
    run: Callable[[Any], Awaitable[str]]
    cites: tuple[str, ...] = ()
    last: bool = False


class Result(Struct, frozen=True, kw_only=True):
    """What a probe came to. seen: the evidence, or why it is degraded, or what went through."""

    id: str
    family: Family
    guarantee: str
    verdict: Verdict
    says: str
    seen: str
    cites: tuple[str, ...]
    seconds: float


class Breach(Exception):
    """An attack went through; the message says what was seen."""


class NotTried(Exception):
    """An attack could not be made, so nothing is proven; the message says why."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What several probes prove together: no more than the worst of them. Of none: degraded."""
    return max(verdicts, key=_RANK.__getitem__, default="degraded")


def exit_status(results: Iterable[Result]) -> int:
    """0: all proven; 1: something failed; 3: nothing failed, and not all could be proven."""
    match worst(result.verdict for result in results):
        case "proven":
            return ALL_PROVEN
        case "failed":
            return SOMETHING_FAILED
        case "degraded":
            return ONLY_DEGRADED


def by_guarantee(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of each guarantee, by its key, in the order in which they came."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.guarantee, []).append(result)
    return found
