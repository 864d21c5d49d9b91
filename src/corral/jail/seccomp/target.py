"""Where a filter is to hold, and how. Light: every start of a sandbox imports it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Mode = Literal["errno", "log", "kill"]


class Target(NamedTuple):
    """machine: as uname(2) says. kernel: version and patch level."""

    machine: str
    kernel: tuple[int, int]
