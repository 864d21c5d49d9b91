"""What a model wrote unseen, before the client hung up, is not had for nothing."""

from __future__ import annotations

from pathlib import Path

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
