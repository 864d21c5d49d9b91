"""How a connection can come to nothing, or to an end, as exceptions within this package."""

from __future__ import annotations


class Outcome(Exception):
    """Why a connection is not made, or goes no further.

    reason: a few words. rule: the text of the rule that decided, or "".
    """

    verdict = "failed"

    def __init__(self, reason: str, rule: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule


class Denied(Outcome):
    """The policy does not have it."""

    verdict = "denied"


class Failed(Outcome):
    """It was allowed and did not work: the resolver, the network, the other side."""
