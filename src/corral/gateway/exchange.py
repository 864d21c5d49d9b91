"""One request and its answer: what is written down of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import structs

from ..policy import Gateway
from .account import Budgets, has_budget
from .answers import Answer, answer
from .asked import Asked
from .dialects import BILLED, Refusal, Route
from .kept import MAX_BODY, Kept, shortened
from .prices import Table
from .redact import Secrets
from .usage import Usage

# Of an answer that was cut off, what a model may have written unseen: thinking is not always shown,
# and an answer that is not streamed comes as a whole. No model offered today is faster by much.
TOKENS_A_SECOND = 200
_SHOWN_HEADERS = ("user-agent", "anthropic-version", "anthropic-beta", "openai-beta")


class Exchange:
    """Begun when a request is let through, or refused; ended once."""

    def __init__(
        self, number: str, agent: int, gateway: Gateway, route: Route, asked: Asked, kept: Kept
    ) -> None:
        self.answer: Answer = answer(route.kind)
        self._route = route
        self._agent = agent
        self._gateway = gateway
        self._asked = asked
        self._kept = kept
        self._began = time.monotonic()
        self._first: float | None = None
        self._sent: float | None = None
        self._ended = False
        self._status: int | None = None
        self._common = {"id": number, "agent": agent, "gateway": gateway.name}

    def began(self, method: str, headers: list[tuple[str, str]], secrets: Secrets) -> None:
        """The first line."""
        sent = self._asked.body
        body: Any = msgspec.Raw(sent) if sent else None
        if len(sent) > MAX_BODY:
            body = shortened(msgspec.json.decode(sent), len(sent))
        shown = {name: value for name, value in headers if name in _SHOWN_HEADERS}
        record = {
            "kind": "request",
            "time": round(time.time(), 3),
            **self._common,
            "method": method,
            "path": self._route.path,
            "model": self._asked.model,
            "stream": self._asked.stream,
            "headers": shown,
            "body": body,
        }
        self._kept.write(record, secrets)

    def sent(self) -> None:
        """The upstream has it, so it may cost something."""
        self._sent = time.monotonic()

    def answered(self, status: int) -> None:
        """The answer begins."""
        self._status = status

    def first(self) -> None:
        """The first byte of its body goes on."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def refused(self, refusal: Refusal, secrets: Secrets) -> None:
        """It was answered here."""
        self._status = refusal.status
        refusal.recorded = True
        self._end("refused", secrets, None, {"error": refusal.message})

    def over(
        self, ended: str, secrets: Secrets, table: Table, budgets: Budgets, *, size: int = 0
    ) -> None:
        """ended: complete, cancelled (by the guest) or failed. size: bytes of the answer."""
        if self._ended:
            return
        more: dict[str, Any] = {}
        good = self._status is None or 200 <= self._status < 300
        if self._route.kind in BILLED and self._sent is not None and good:
            used = self._used(time.monotonic() - self._sent)
            cost = self._cost(used, table)
            account = budgets.account
            account.of(self._gateway.name, self._agent).add(used, cost)
            self._kept.spent(account)
            price = table.price(self._asked.model)
            more = {
                "usage": {name: value for name, value in structs.asdict(used).items() if value},
                "cost_usd": None if cost is None else round(cost, 8),
                "spent_usd": round(account.total(self._gateway.name), 6),
            }
            guessed = cost is not None and used.reported is None
            if guessed and (price is None or price.assumed):
                more["price"] = "assumed"
        self._end(ended, secrets, shortened(self.answer.body, size), more)

    def _cost(self, used: Usage, table: Table) -> float | None:
        """US dollars; None: not known, which with a budget nothing is: it counts at most."""
        if has_budget(self._gateway):
            return table.at_most(self._asked.models, used)
        return table.cost(self._asked.model, used)

    def _used(self, seconds: float) -> Usage:
        """What it cost in tokens, rather too much where that was not told.

        Who hangs up just before the end would else have a model think for nothing.
        """
        used = self.answer.settled(len(self._asked.body))
        if not used.estimated:
            return used
        unseen = min(int(seconds * TOKENS_A_SECOND), self._asked.most_output)
        return structs.replace(used, output=max(used.output, unseen))

    def _end(self, ended: str, secrets: Secrets, body: Any, more: dict[str, Any]) -> None:
        if self._ended:
            return
        self._ended = True
        record = {
            "kind": "response",
            "time": round(time.time(), 3),
            **self._common,
            "status": self._status,
            "ended": ended,
            "seconds": round(time.monotonic() - self._began, 4),
            "first_byte": None if self._first is None else round(self._first, 4),
            **more,
            "body": body,
        }
        self._kept.write(record, secrets)
