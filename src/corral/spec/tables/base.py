"""What every table of a file is."""

from __future__ import annotations

from msgspec import Struct


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of corral.toml. A key that is not said is UNSET."""
