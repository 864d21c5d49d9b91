"""The parts of the gateway that are functions of values."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.gateway import usage as usages
from corral.gateway.account import Account, Budgets, Rate
from corral.gateway.answers import answer
from corral.gateway.asked import read
from corral.gateway.dialects import Kind, Refusal, error_body, error_headers, route
from corral.gateway.headers import back, onwards, query
from corral.gateway.prices import table
from corral.gateway.redact import Redactor, Secrets, spellings
from corral.gateway.relay import address
from corral.gateway.sse import Events, data_of
from corral.gateway.usage import Usage
from corral.policy import ANTHROPIC, OPENAI, Gateway
from corral.scripted import Reply
from corral.scripted.dialects import DIALECTS

KEYS = ("sk-ant-api03-abcabcabd", "aaaaaaab", "with/slash+and=more")
GATEWAY = Gateway(name="a", dialect=ANTHROPIC, upstream="https://u.test", key=None)
CHAT = Gateway(name="o", dialect=OPENAI, upstream="https://u.test/v1", key=None)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


# Redaction


@given(
    st.lists(st.one_of(st.sampled_from(KEYS), st.text("aksb-/3", max_size=9)), max_size=12),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_no_credential_passes_wherever_it_is_cut(words: list[str], cuts: list[int]) -> None:
    whole = "".join(words).encode()
    redactor = Redactor(Secrets(KEYS))
    out = b"".join(redactor.feed(piece) for piece in pieces(whole, cuts)) + redactor.end()
    assert len(out) == len(whole)
    for key in KEYS:
        assert key.encode() not in out
    for before, after in zip(whole, out, strict=True):
        assert after in (before, ord("*"))


@pytest.mark.parametrize("key", KEYS)
@given(data=st.data())
def test_what_is_held_back_tells_nothing_of_the_key(key: str, data: st.DataObject) -> None:
    """An upstream repeats what the guest guesses: pieces end at the same place, right or wrong."""
    said = data.draw(st.sampled_from([key, *(text.decode() for text in sorted(spellings(key)))]))
    right = said[: data.draw(st.integers(1, len(said) - 1))]
    wrong = data.draw(st.text("aksb-/3", min_size=len(right), max_size=len(right)))
    before = data.draw(st.sampled_from(["", "guess: ", '{"said":"', "x" * 500]))
    cut = [len(Redactor(Secrets(KEYS)).feed(f"{before}{each}".encode())) for each in (right, wrong)]
    assert cut[0] == cut[1]


def test_what_cannot_be_a_credential_is_not_held_back() -> None:
    redactor = Redactor(Secrets(KEYS))
    assert redactor.feed(b"data: hello") == b"data: "
    assert redactor.feed(b" world\n") == b"hello world\n"


@pytest.mark.parametrize("path", DIALECTS)
def test_an_event_that_is_whole_goes_on_at_once(path: str) -> None:
    """Each token is seen when it comes, and not with the next one."""
    redactor = Redactor(Secrets(KEYS))
    for event in DIALECTS[path].events({"model": "m"}, Reply(text="one two")):
        assert redactor.feed(event) == event


@pytest.mark.parametrize("spelled", ["with\\/slash+and=more", "with%2Fslash%2Band%3Dmore"])
def test_other_spellings_are_found(spelled: str) -> None:
    assert Secrets(KEYS).clean_text(f"x{spelled}y") == "x" + "*" * len(spelled) + "y"


def test_without_credentials_everything_passes() -> None:
    secrets = Secrets(("none", ""))
    assert secrets.clean(b"none") == b"none"


# Events


@given(
    st.lists(st.sampled_from([b"data: a\n\n", b"event: b\r\ndata: c\r\n\r\n", b":\n\n", b"d\r\r"])),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_events_come_whole_however_they_are_cut(events: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(events)
    split = Events()
    found = [event for piece in pieces(whole, cuts) for event in split.feed(piece)]
    assert b"".join(found) + split.end() == whole
    # A lone CR at the end of a piece may belong to the next line end; nothing is lost by it.
    assert len(found) <= len(events)


def test_the_data_of_an_event_is_its_lines_joined() -> None:
    assert data_of(b"event: x\ndata: {\ndata: }\nid: 5\n\n") == b"{\n}"


# What comes back


@pytest.mark.parametrize(
    ("kind", "path"),
    [("messages", "/v1/messages"), ("chat", "/chat/completions"), ("responses", "/responses")],
)
def test_a_stream_is_put_together_as_it_would_have_come_whole(kind: Kind, path: str) -> None:
    reply = Reply(text="one two", tools=(("Bash", {"command": "é"}), ("Read", {})))
    dialect, asked = DIALECTS[path], {"model": "m", "stream_options": {"include_usage": True}}
    streamed, whole = answer(kind), answer(kind)
    for event in dialect.events(asked, reply):
        streamed.event(data_of(event))
    whole.whole(json.dumps(dialect.whole(asked, reply)).encode())
    assert streamed.settled(100) == whole.settled(100) == Usage(input=10, output=5)
    text = json.dumps(streamed.body)
    assert "one two" in text and "Bash" in text and "\\u00e9" in text


def test_an_answer_that_was_cut_off_is_counted_by_what_came() -> None:
    cut = answer("messages")
    for event in DIALECTS["/v1/messages"].events({}, Reply(text="word " * 30))[:20]:
        cut.event(data_of(event))
    found = cut.settled(1000)
    assert found.estimated and found.input == 10 and found.output > 20
    nothing = answer("chat").settled(3000)
    assert nothing.estimated and nothing.input > 900 and nothing.output == 1


@given(st.binary(max_size=300))
def test_no_answer_makes_it_fail(data: bytes) -> None:
    for kind in ("messages", "chat", "responses", "other"):
        gatherer = answer(kind)
        gatherer.event(data)
        gatherer.whole(data)
        gatherer.settled(0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "index", "delta", "content_block", "message", "usage", "choices"),
                    *("tool_calls", "function", "partial_json", "response", "text", "id"),
                ]
            ),
            inner
            | st.sampled_from(["message_start", "content_block_start", "content_block_delta"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=6))
def test_no_event_makes_it_fail(said: list[object]) -> None:
    for kind in ("messages", "chat", "responses"):
        gatherer = answer(kind)
        for each in said:
            gatherer.event(json.dumps(each).encode())
        gatherer.settled(0)


# Usage and prices


def test_anthropics_usage_tells_what_was_read_from_and_written_to_the_cache() -> None:
    said = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        "cache_read_input_tokens": 1000,
        "output_tokens": 7,
        "server_tool_use": {"web_search_requests": 2},
    }
    found = usages.anthropic(said, Usage())
    assert found == Usage(
        input=5, output=7, cache_read=1000, cache_write=60, cache_write_hour=40, searches=2
    )
    assert usages.anthropic({"output_tokens": 9}, found).output == 9
    cost = table().cost("claude-opus-5", found)
    expected = (5 * 5 + 7 * 25 + 1000 * 0.5 + 60 * 6.25 + 40 * 10) / 1e6 + 0.02
    assert cost == pytest.approx(expected)


def test_openais_usage_counts_cached_tokens_once() -> None:
    chat = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 40}}
    assert usages.openai({**chat, "completion_tokens": 3}) == Usage(
        input=60, cache_read=40, output=3
    )
    responses = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}}
    assert usages.openai({**responses, "output_tokens": 3}).cache_read == 40
    assert usages.openai({"prompt_tokens": 1, "cost": 0.5}).reported == 0.5
    assert usages.openai({"prompt_tokens": -1, "completion_tokens": True}) == Usage()


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("claude-opus-4-20250514", 15),
        ("claude-opus-4-5-20251101", 5),
        ("claude-sonnet-4-5", 3),
        ("anthropic/claude-haiku-4.5:free", 1),
        ("gpt-5", 1.25),
        ("gpt-5-2025-08-07", 1.25),
        ("gpt-5.5-2026-04-23", 5),
        ("openai/gpt-5-nano", 0.05),
    ],
)
def test_models_have_their_own_price(model: str, dollars: float) -> None:
    price = table().price(model)
    assert price is not None and price.input == dollars


def test_a_later_model_counts_as_the_dearest_of_its_family_and_a_strange_one_as_nothing() -> None:
    later = table().price("claude-opus-9")
    assert later is not None and later.assumed and later.output == 75
    assert table().price("llama-3") is None and table().cost("llama-3", Usage(input=5)) is None


def test_at_most_a_request_costs_what_the_dearest_model_that_may_answer_does() -> None:
    used = Usage(input=1_000_000, output=1_000_000)
    cheap, dear = ("openai/gpt-5-nano",), ("openai/gpt-5-nano", "openai/o1-pro")
    assert table().at_most(cheap, used) == table().cost("gpt-5-nano", used)
    assert table().at_most(dear, used) == table().cost("o1-pro", used)
    strange = table().at_most(("llama-3",), used)
    assert strange == max(price.cost(used, 0.0) for price in table().models)
    assert table().at_most(("llama-3",), msgspec.structs.replace(used, reported=0.5)) == 0.5


def test_much_input_has_another_price() -> None:
    few, many = Usage(input=200_000), Usage(input=100_000, cache_read=100_001)
    assert table().cost("claude-sonnet-4-5", few) == pytest.approx(0.6)
    assert table().cost("claude-sonnet-4-5", many) == pytest.approx(0.6 + 0.060_000_6)


def test_the_table_of_prices_says_when_and_where_from() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", table().date)
    assert all(source.startswith("https://") for source in table().sources)


# Budgets and rates


def test_a_budget_ends_at_most_one_request_too_late() -> None:
    gateway = msgspec.structs.replace(GATEWAY, budget_usd=1.0, agent_budget_usd=0.6)
    budgets = Budgets(Account())
    with (
        budgets.under_way(gateway, 1, 0.7),
        pytest.raises(Refusal, match="needed by requests under way") as refusal,
        budgets.under_way(gateway, 1, 0.1),
    ):
        pass
    assert refusal.value.status == 429 and refusal.value.retry_after
    budgets.account.of("a", 1).add(Usage(input=1), 0.6)
    with pytest.raises(Refusal, match=r"of 0.6 USD of this agent is spent"):
        budgets.under_way(gateway, 1, 0.1).__enter__()
    with budgets.under_way(gateway, 2, 0.1):
        pass
    budgets.account.of("a", 2).add(Usage(input=1), 0.4)
    with pytest.raises(Refusal, match="of 1 USD is spent") as spent:
        budgets.under_way(gateway, 3, 0.1).__enter__()
    assert spent.value.status == 400 and spent.value.retry_after is None


def test_a_rate_holds_in_any_minute() -> None:
    rate = Rate(2)
    rate.take(0.0)
    rate.take(59.0)
    with pytest.raises(Refusal) as refusal:
        rate.take(59.5)
    assert refusal.value.retry_after == pytest.approx(0.5)
    rate.take(60.0)
    with pytest.raises(Refusal):
        rate.take(118.9)
    rate.take(119.0)


# What goes out


@pytest.mark.parametrize(
    ("upstream", "dialect", "path", "expected"),
    [
        ("https://api.anthropic.com", ANTHROPIC, "/v1/messages", "/v1/messages"),
        ("https://x.test/v1", ANTHROPIC, "/v1/messages", "/v1/messages"),
        ("https://x.test/a/b", ANTHROPIC, "/v1/messages", "/a/b/v1/messages"),
        ("https://api.openai.com", OPENAI, "/responses", "/v1/responses"),
        ("https://openrouter.ai/api/v1", OPENAI, "/responses", "/api/v1/responses"),
        ("http://localhost:11434/v1", OPENAI, "/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_upstreams_path_stands_before_the_requests(
    upstream: str, dialect: str, path: str, expected: str
) -> None:
    gateway = Gateway(name="a", dialect=dialect, upstream=upstream, key=None)  # type: ignore[arg-type]
    assert address(gateway, path, "").split("/", 3)[3] == expected[1:]
    assert address(gateway, path, "a=b").endswith(f"{expected}?a=b")


def test_headers_of_one_connection_and_credentials_stay_here() -> None:
    sent = onwards(
        [
            ("Connection", "close, X-Named"),
            ("X-Named", "1"),
            ("Authorization", "x"),
            ("X-My-Api-Key", "x"),
            ("OpenAI-Beta", "y"),
            ("X-Stainless-Arch", "z"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Accept-Encoding", "gzip"),
            ("Anthropic-Beta", "a, b"),
            ("anthropic-beta", "c"),
        ],
        oauth=False,
    )
    assert sent == [("openai-beta", "y"), ("x-stainless-arch", "z"), ("anthropic-beta", "a,b,c")]
    secrets = Secrets(KEYS)
    got = back([("X-Echo", f"a {KEYS[0]}"), ("Set-Cookie", "a"), ("Retry-After", "1")], secrets)
    assert got == [("x-echo", "a " + "*" * len(KEYS[0])), ("retry-after", "1")]


@pytest.mark.parametrize("text", ["a=%ff", "&".join("a=b" for _ in range(100)), "a=" + "x" * 5000])
def test_a_query_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Refusal):
        query(text)


@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD"]), st.text("/v1messages.%-_:@", max_size=40)
)
def test_no_path_leads_out_of_what_is_known(method: str, path: str) -> None:
    for dialect in (ANTHROPIC, OPENAI):
        try:
            found = route(dialect, method, path)
        except Refusal:
            continue
        assert ".." not in found.path and "%" not in found.path and "//" not in found.path


@pytest.mark.parametrize("gateway", [GATEWAY, CHAT])
@given(data=st.binary(max_size=200))
def test_no_body_makes_it_fail(gateway: Gateway, data: bytes) -> None:
    for kind in ("messages", "chat", "other"):
        try:
            asked = read(kind, gateway, data, table())
        except Refusal:
            continue
        assert json.loads(asked.body).get("model", "") == asked.model


@pytest.mark.parametrize(
    "more",
    [
        {"model": "llama-3"},
        {"model": "gpt-5", "service_tier": "priority"},
        {"model": "gpt-5", "background": True},
        {"model": "gpt-5", "models": ["llama-3"]},
        {"model": "gpt-5", "models": "llama-3"},
        {"model": "gpt-5", "models": 5},
        {"model": "gpt-5", "models": ["gpt-5"] * 33},
        {"model": "gpt-5", "n": "5"},
    ],
)
def test_with_a_budget_only_what_can_be_counted_is_asked(more: dict[str, object]) -> None:
    gateway = msgspec.structs.replace(CHAT, budget_usd=1.0)
    data = json.dumps(more).encode()
    read("chat", CHAT, data, table())
    with pytest.raises(Refusal) as refusal:
        read("chat", gateway, data, table())
    assert refusal.value.status == 400


def test_an_error_is_said_in_the_dialects_words() -> None:
    refusal = Refusal(429, "slowly.", code="rate_limit_exceeded", retry_after=1.5)
    assert json.loads(error_body(ANTHROPIC, refusal)) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "corral: slowly."},
    }
    assert json.loads(error_body(OPENAI, refusal))["error"]["code"] == "rate_limit_exceeded"
    assert error_headers(refusal)["retry-after"] == "2"
    assert error_headers(Refusal(400, "no"))["x-should-retry"] == "false"
