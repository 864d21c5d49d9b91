"""What a model wrote unseen, before the client hung up, is not had for nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from corral.gateway.account import Account, Budgets
from corral.gateway.asked import Asked
from corral.gateway.dialects import Route
from corral.gateway.exchange import TOKENS_A_SECOND, Exchange
from corral.gateway.kept import Kept
from corral.gateway.prices import table
from corral.gateway.redact import Secrets
from corral.policy import Gateway

GATEWAY = Gateway(
    name="anthropic", dialect="anthropic", upstream="https://x.test", key=None, budget_usd=1.0
)
MODEL = "claude-sonnet-4-5"


@pytest.mark.parametrize(
    ("seconds", "most", "output"),
    [
        (60.0, 100_000, 60 * TOKENS_A_SECOND),  # a minute of thinking that nobody was shown
        (60.0, 500, 500),  # no more than was asked for
        (0.0, 100_000, 1),
    ],
)
@pytest.mark.parametrize("ended", ["cancelled", "failed"])
async def test_who_hangs_up_before_the_end_pays_for_the_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    most: int,
    output: int,
    ended: str,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("corral.gateway.exchange.time.monotonic", lambda: now[0])
    budgets = Budgets(Account())
    kept = Kept(tmp_path, lambda _text: None)
    asked = Asked(model=MODEL, stream=False, body=b"{}", most_output=most)
    one = Exchange("1", 1, GATEWAY, Route("messages", "/v1/messages"), asked, kept)
    one.sent()
    now[0] += seconds
    one.over(ended, Secrets(()), table(), budgets)
    spent = budgets.account.of("anthropic", 1)
    assert spent.output == output
    assert spent.usd > 0
    kept.close()


async def test_what_was_told_counts_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("corral.gateway.exchange.time.monotonic", lambda: now[0])
    budgets = Budgets(Account())
    kept = Kept(tmp_path, lambda _text: None)
    asked = Asked(model=MODEL, body=b"{}", most_output=100_000)
    one = Exchange("1", 1, GATEWAY, Route("messages", "/v1/messages"), asked, kept)
    one.sent()
    now[0] += 60
    one.answer.whole(b'{"usage": {"input_tokens": 5, "output_tokens": 7}}')
    one.over("complete", Secrets(()), table(), budgets)
    assert budgets.account.of("anthropic", 1).output == 7
    kept.close()


ROUTER = msgspec.structs.replace(
    GATEWAY, name="router", dialect="openai", upstream="https://openrouter.ai/api/v1"
)


@pytest.mark.parametrize("further", [(), ("x-ai/grok-9",), ("openai/o1-pro",)])
async def test_what_openrouter_did_not_tell_costs_as_much_as_the_dearest_that_may_have_answered(
    tmp_path: Path, further: tuple[str, ...]
) -> None:
    """Who hangs up before the event with the cost would else have any model for nothing."""
    budgets, kept = Budgets(Account()), Kept(tmp_path, lambda _text: None)
    asked = Asked(
        model="openai/gpt-5-nano" if further else "x-ai/grok-9", further=further, body=b"{}"
    )
    one = Exchange("1", 1, ROUTER, Route("chat", "/chat/completions"), asked, kept)
    one.sent()
    one.answer.event(b'{"choices": [{"delta": {"content": "' + b"abc" * 1_000_000 + b'"}}]}')
    one.over("cancelled", Secrets(()), table(), budgets)
    dearest = max(price.output for price in table().models)
    assert budgets.account.of("router", 1).usd == pytest.approx(dearest, rel=0.01)
    assert budgets.account.of("router", 1).unpriced == 0
    kept.close()


async def test_what_openrouter_told_costs_that(tmp_path: Path) -> None:
    budgets, kept = Budgets(Account()), Kept(tmp_path, lambda _text: None)
    asked = Asked(model="x-ai/grok-9", body=b"{}")
    one = Exchange("1", 1, ROUTER, Route("chat", "/chat/completions"), asked, kept)
    one.sent()
    one.answer.event(b'{"choices": [], "usage": {"completion_tokens": 1000, "cost": 0.25}}')
    one.over("cancelled", Secrets(()), table(), budgets)
    assert budgets.account.of("router", 1).usd == 0.25
    kept.close()
