"""What is asked of the process that finds keys, and what it answers. See `corral.gateway.keys`."""

from __future__ import annotations

from msgspec import Struct

from ..policy import Key


class Wanted(Struct, frozen=True, kw_only=True):
    """A key that somebody wants. rejected: SHA-256, in hex, of the one that did not work."""

    name: str
    key: Key
    rejected: str = ""


class Found(Struct, frozen=True, kw_only=True):
    """A key, or why there is none.

    key: None when it cannot be had, and then why, in `problem`. expires: seconds since 1970, or
    None. bearer: it is a login's token: it goes into `authorization`, whatever the dialect's way.
    """

    name: str
    key: str | None
    problem: str = ""
    expires: float | None = None
    bearer: bool = False
