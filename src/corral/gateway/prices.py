"""What tokens cost: the table in prices.json, which has its date and its sources. Pure.

A later model of a known family, which the table does not have, counts as the dearest of it
(`assumed`). Of any other, tokens are counted and money is not; with a budget, OpenRouter's are let
through, and count as the dearest of the table until their cost is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from .usage import Usage

FILE = Path(__file__).with_name("prices.json")


class Rates(Struct, frozen=True, kw_only=True):
    """US dollars for a million tokens. over: applies to requests with more tokens of input."""

    input: float
    output: float
    cache_read: float
    cache_write: float = 0.0
    cache_write_hour: float = 0.0
    over: int = 0


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the models that `match` one of these patterns. long: of requests with much input."""

    match: tuple[str, ...]
    input: float
    output: float
    cache_read: float
    cache_write: float = 0.0
    cache_write_hour: float = 0.0
    long: Rates | None = None
    assumed: bool = False

    def cost(self, usage: Usage, search: float) -> float:
        """US dollars. search: what one costs."""
        rates: Price | Rates = self
        if self.long is not None and usage.all_input > self.long.over:
            rates = self.long
        millionths = (
            usage.input * rates.input
            + usage.output * rates.output
            + usage.cache_read * rates.cache_read
            + usage.cache_write * (rates.cache_write or rates.input)
            + usage.cache_write_hour * (rates.cache_write_hour or rates.input)
        )
        return millionths / 1e6 + usage.searches * search


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. The first price that matches holds. searches: a thousand of them. note: how far it
    was checked."""

    date: str
    unit: str
    sources: tuple[str, ...]
    note: str
    searches: float
    models: tuple[Price, ...]

    def price(self, model: str) -> Price | None:
        """Of a model; None: not known. Other shops put the maker before its name, a tag behind."""
        name = model.rpartition("/")[2].partition(":")[0]
        for price in self.models:
            if any(fnmatchcase(name, pattern) for pattern in price.match):
                return price
        return None

    def cost(self, model: str, usage: Usage) -> float | None:
        """US dollars of a request, as reported, else by this table; None: not known."""
        if usage.reported is not None:
            return usage.reported
        price = self.price(model)
        return None if price is None else price.cost(usage, self.searches / 1000)

    def at_most(self, models: Iterable[str], usage: Usage) -> float:
        """US dollars of a request that any of these models may answer, as reported, else at most.

        One without a price counts as the dearest of this table.
        """
        if usage.reported is not None:
            return usage.reported
        prices: set[Price] = set()
        for model in models:
            price = self.price(model)
            prices.update(self.models if price is None else (price,))
        return max(price.cost(usage, self.searches / 1000) for price in prices)


@cache
def table() -> Table:
    """The table that corral comes with."""
    return msgspec.json.decode(FILE.read_bytes(), type=Table)
