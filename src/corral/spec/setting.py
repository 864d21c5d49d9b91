"""What is known of one setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from .values import Base


class Setting(Struct, frozen=True, kw_only=True):
    """One setting.

    parse: reads a TOML value or text; raises ConfigError. adds: lower layers' items stay.
    identity: items with an equal one replace each other. tighter: "lower" or "true" when a
    smaller or true value can only take away; "mask" for patterns; "mode" where an earlier one of
    policy's modes does, "order" where an earlier one of `order` does, "subset" where a part of the
    list does, "more" where a further item does; None: every change widens. bucket: the key
    under which the merged value is kept, if not its own. asks: what accepting an item or a value
    allows, in plain words; None: as show.
    """

    key: str
    option: str
    variable: str
    meaning: str
    parse: Callable[[object, Base], object]
    default: object = None
    adds: bool = False
    identity: Callable[[object], object] | None = None
    tighter: Literal["lower", "true", "mask", "share", "mode", "order", "subset", "more"] | None = (
        None
    )
    order: tuple[str, ...] = ()
    bucket: str = ""
    show: Callable[[object], str] = str
    asks: Callable[[object], str] | None = None
