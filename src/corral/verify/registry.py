"""All probes: how one is declared, and which of them are meant by `--only`."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from typing import TypeVar, get_args

from ..errors import UsageError
from .guarantees import GUARANTEES
from .model import Family, Probe, Scene

S = TypeVar("S")
Run = Callable[[S], Awaitable[str]]


class Registry:
    """The probes of one family, in the order in which they are declared."""

    def __init__(self, family: Family) -> None:
        self.family: Family = family
        self.probes: list[Probe] = []

    def probe(
        self,
        name: str,
        guarantee: str,
        says: str,
        *,
        scene: Scene,
        cites: tuple[str, ...] = (),
        last: bool = False,
    ) -> Callable[[Run[S]], Run[S]]:
        """Declares the decorated function as a probe; see `Probe` for the arguments."""
        assert guarantee in GUARANTEES, guarantee

        def declare(run: Run[S]) -> Run[S]:
            found = Probe(
                id=name,
                family=self.family,
                guarantee=guarantee,
                says=says,
                scene=scene,
                run=run,
                cites=cites,
                last=last,
            )
            self.probes.append(found)
            return run

        return declare


def all_probes() -> tuple[Probe, ...]:
    """Every probe, family by family."""
    from . import probes

    return tuple(each for family in probes.FAMILIES for each in family.probes)


def select(only: tuple[str, ...] = ()) -> tuple[Probe, ...]:
    """The probes of these families and with these ids; all, for none. Raises UsageError."""
    found = all_probes()
    if not only:
        return found
    ids = {probe.id for probe in found}
    families = set(get_args(Family))
    for word in only:
        if word not in ids | families:
            near = difflib.get_close_matches(word, sorted(ids | families), 1)
            raise UsageError(
                f"there is no family of probes and no probe “{word}”.",
                hint=f"Did you mean “{near[0]}”?" if near else "`corral verify --list` has all.",
            )
    return tuple(probe for probe in found if probe.id in only or probe.family in only)
