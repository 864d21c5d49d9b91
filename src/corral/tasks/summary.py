"""A task in short: all that a client needs to list it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Status = Literal["done", "failed", "timeout", "cancelled", "error", "lost", "refused"]
State = Literal["queued", "running", "ended"]


class Summary(Struct, frozen=True, kw_only=True):
    """One of a sandbox's tasks. what: it in short, printable. status: None while it has none."""

    id: str
    agent: int
    action: str
    what: str
    state: State
    status: Status | None = None
    queued: float = 0.0
    began: float | None = None
    ended: float | None = None
