"""The calls of what starts commands in a jail, which has the same filter as the commands."""

from __future__ import annotations

STARTING: tuple[str, ...] = ()
