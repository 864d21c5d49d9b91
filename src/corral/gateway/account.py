"""What was spent, and whether more may be. Pure, but for the clock that is passed in.

A request is let through while something of the budget is left after what others, under way now, may
still cost at most. So what is spent ends above a budget by less than the cost of one request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct, field

from ..policy import Gateway
from .dialects import Refusal
from .usage import Usage


class Spent(Struct, kw_only=True):
    """Of one agent at one gateway. usd: of requests whose price is known."""

    usd: float = 0.0
    requests: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    unpriced: int = 0

    def add(self, usage: Usage, cost: float | None) -> None:
        """A request has ended."""
        self.requests += 1
        self.input += usage.input
        self.output += usage.output
        self.cache_read += usage.cache_read
        self.cache_write += usage.cache_write + usage.cache_write_hour
        if cost is None:
            self.unpriced += 1
        else:
            self.usd += cost

    def __add__(self, other: Spent) -> Spent:
        fields = self.__struct_fields__
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in fields})


class Account(Struct, kw_only=True):
    """Of a sandbox: gateway -> agent's number -> what it spent.

    lost: why what was spent before is not known, "" if it is.
    """

    gateways: dict[str, dict[int, Spent]] = field(default_factory=dict)
    lost: str = ""

    def of(self, gateway: str, agent: int) -> Spent:
        """Of one agent, to be added to."""
        return self.gateways.setdefault(gateway, {}).setdefault(agent, Spent())

    def total(self, gateway: str) -> float:
        """US dollars of all agents."""
        return sum(spent.usd for spent in self.gateways.get(gateway, {}).values())


def has_budget(gateway: Gateway) -> bool:
    """Whether what its requests cost is limited."""
    return gateway.budget_usd is not None or gateway.agent_budget_usd is not None


class Budgets:
    """Lets requests through, or refuses them."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._under_way: dict[tuple[str, int], float] = {}

    @contextmanager
    def under_way(self, gateway: Gateway, agent: int, most: float) -> Iterator[None]:
        """A request that costs `most` US dollars at most, while it is under way. Raises Refusal."""
        whose = (gateway.name, agent)
        if self.account.lost and has_budget(gateway):
            raise Refusal(400, self.account.lost, code="insufficient_quota")
        here = self._under_way.get(whose, 0.0)
        all_here = sum(usd for (name, _), usd in self._under_way.items() if name == gateway.name)
        own = self.account.of(gateway.name, agent).usd
        _check(gateway.agent_budget_usd, own, here, "of this agent")
        _check(gateway.budget_usd, self.account.total(gateway.name), all_here, "")
        self._under_way[whose] = here + most
        try:
            yield
        finally:
            rest = self._under_way[whose] - most
            if rest > 1e-12:
                self._under_way[whose] = rest
            else:
                del self._under_way[whose]


def _check(budget: float | None, spent: float, promised: float, whose: str) -> None:
    if budget is None:
        return
    name = f"the budget of {budget:g} USD {whose}".rstrip()
    if spent >= budget:
        # As the Anthropic API answers when a credit is used up; no SDK tries again.
        raise Refusal(400, f"{name} is spent.", code="insufficient_quota")
    if spent + promised >= budget:
        raise Refusal(
            429, f"what is left of {name} is needed by requests under way.", retry_after=2.0
        )


class Rate:
    """At most so many requests in any minute."""

    def __init__(self, rpm: int) -> None:
        self._rpm = rpm
        self._times: deque[float] = deque()

    def take(self, now: float) -> None:
        """A request comes; now: seconds of a steady clock. Raises Refusal."""
        while self._times and self._times[0] <= now - 60.0:
            self._times.popleft()
        if len(self._times) >= self._rpm:
            wait = self._times[0] + 60.0 - now
            text = f"more than {self._rpm} requests a minute; the next in {wait:.1f} seconds."
            raise Refusal(429, text, code="rate_limit_exceeded", retry_after=wait)
        self._times.append(now)
