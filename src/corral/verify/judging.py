"""From the outcome of attempts to a verdict: what was refused, and for the right reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from .model import Breach, NotTried

# What an attempt came to: "done", or the name of an errno. See `inside.PRELUDE`.
Outcome = Mapping[str, str]
DONE = "done"
BROKEN = "broken"  # the key under which a program in the guest says why it could not be run


def refused(outcome: Outcome, *errnos: str, at_least: int = 1) -> str:
    """Every attempt was made and failed with one of these errnos; returns that as a sentence.

    Raises Breach where one went through, NotTried where one failed for another reason, which
    proves nothing, or there are fewer than at_least.
    """
    runnable(outcome)
    through = [name for name, how in outcome.items() if how == DONE]
    if through:
        raise Breach(f"went through: {', '.join(sorted(through))}")
    strange = {name: how for name, how in outcome.items() if how not in errnos}
    if strange:
        name, how = next(iter(strange.items()))
        raise NotTried(f"“{name}” ended otherwise than by a refusal: {how}")
    if len(outcome) < at_least:
        raise NotTried(f"{len(outcome)} of {at_least} attempts were made")
    return f"{len(outcome)} refused: {counted(outcome.values())}"


def succeeded(outcome: Outcome, names: Collection[str] = ()) -> None:
    """The control: the same is possible where it is allowed, so the refusals mean something.

    names: of the attempts that must have succeeded, by default all. Raises NotTried.
    """
    runnable(outcome)
    missing = [name for name in names or outcome if outcome.get(name) != DONE]
    if missing or not outcome:
        how = outcome.get(missing[0], "not made") if missing else "nothing was tried"
        what = missing[0] if missing else "the control"
        raise NotTried(f"it is not possible where it is allowed either (“{what}”: {how})")


def runnable(outcome: Outcome) -> None:
    """Raises NotTried where the program in the guest could not be run."""
    if BROKEN in outcome:
        raise NotTried(f"the attack could not be made: {outcome[BROKEN]}")


def breach_if(condition: object, seen: str) -> None:
    """Raises Breach where condition holds."""
    if condition:
        raise Breach(seen)


def tried_if(condition: object, why_not: str) -> None:
    """Raises NotTried unless condition holds."""
    if not condition:
        raise NotTried(why_not)


def counted(words: Collection[str]) -> str:
    """How often each word comes, the most frequent first: "EROFS 16, EPERM 2"."""
    return ", ".join(f"{word} {times}" for word, times in Counter(words).most_common())
