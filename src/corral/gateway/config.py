"""What the gateway's process is told when it starts. No secret is in it."""

from __future__ import annotations

from msgspec import Struct

from ..policy import Gateway


class Config(Struct, frozen=True, kw_only=True):
    """The gateways of one sandbox.

    agents: their numbers, in the order of the listening sockets. allowed: the names of gateways, of
    agents that may not use all of them. life: a word for this run of the sandbox, part of each
    request's id. kept: money that was spent before counts, since the sandbox is one that stays.
    folder: where the transcript and the account of what was spent are kept.
    """

    gateways: tuple[Gateway, ...]
    agents: tuple[int, ...]
    life: str
    kept: bool
    folder: str
    allowed: dict[int, tuple[str, ...]]


TRANSCRIPT = "transcript.jsonl"
SPENT = "spent.json"
