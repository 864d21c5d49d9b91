"""For any input: no crash, no secret back, and nothing else changed."""

from __future__ import annotations

import base64
import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.intercept import placeholders, requests
from corral.gateway.intercept.answers import Inflate, UnreadableAnswerError, request_fields
from corral.gateway.intercept.messages import Preface, read_preface
from corral.gateway.intercept.replace import Needles, Watcher, inject, mentions
from corral.gateway.intercept.websocket import FrameScrubber
from corral.gateway.redact import Redactor

SECRET, PLACEHOLDER = b"ghp_s3cr3tS3CR3T", b"ghp_placeholder1"
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=80)
# Bytes in which the secret, and beginnings of it, are common.
TEXT = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.just(SECRET),
        st.integers(1, len(SECRET)).map(lambda n: SECRET[:n]),
        st.just(b" "),
    ),
    max_size=12,
).map(b"".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def needles() -> Needles:
    found = Needles()
    found.add(SECRET, PLACEHOLDER)
    return found


@given(st.binary(max_size=300))
def test_a_preface_is_understood_or_refused(line: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_preface(line), Preface)


@given(TEXT, st.lists(st.integers(0, 500)))
def test_a_stream_is_cleaned_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    scrubber = Redactor(needles())
    out = [scrubber.feed(piece) for piece in pieces(data, cuts)]
    cleaned = b"".join(out) + scrubber.end()
    assert SECRET not in cleaned
    assert cleaned == data.replace(SECRET, PLACEHOLDER)


@given(st.integers(0, len(SECRET) - 1), st.text("abcdefghijklmnopXYZ0189_", min_size=1, max_size=9))
def test_what_is_held_back_tells_nothing_of_the_secret(length: int, wrong: str) -> None:
    """The right beginning and a wrong one of the same length are held back alike."""
    right = b"guess: " + SECRET[:length]
    other = b"guess: " + (wrong * length)[:length].encode()
    assert len(Redactor(needles()).feed(right)) == len(Redactor(needles()).feed(other))


@given(VISIBLE, st.binary(max_size=20), st.binary(max_size=20))
def test_no_form_of_any_secret_stays(secret: str, before: bytes, after: bytes) -> None:
    made = placeholders.make(secret)
    assert len(made) == len(secret) and made.isascii()
    found = Needles()
    found.add(secret.encode(), made.encode())
    if made == secret:
        return
    raw = secret.encode()
    for text in (raw, raw.hex().encode(), base64.b64encode(before + raw + after)):
        cleaned = found.clean(text)
        assert len(cleaned) == len(text)
        assert cleaned != text
    decoded = base64.b64decode(found.clean(base64.b64encode(before + raw + after)))
    assert raw not in decoded


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_only_the_placeholder_is_replaced(value: bytes, around: bytes) -> None:
    out = inject(value, PLACEHOLDER, SECRET)
    assert (out is not None) == mentions(value, PLACEHOLDER)
    credentials = b"Basic " + base64.b64encode(around + b":" + PLACEHOLDER)
    out = inject(credentials, PLACEHOLDER, SECRET)
    assert out is not None and base64.b64decode(out[6:]) == around + b":" + SECRET


@given(TEXT, st.lists(st.integers(0, 500)))
def test_a_placeholder_is_seen_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    watcher = Watcher({"A": SECRET})
    seen = [name for piece in pieces(data, cuts) for name in watcher.feed(piece)]
    assert seen == (["A"] if SECRET in data else [])


@given(
    st.lists(st.tuples(st.sampled_from([0x81, 0x82, 0x01, 0x80, 0x89, 0x88]), TEXT), max_size=6),
    st.lists(st.integers(0, 2000)),
)
def test_frames_keep_their_borders(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    def framed(first: int, payload: bytes) -> bytes:
        if len(payload) < 126:
            return bytes((first, len(payload))) + payload
        return bytes((first, 126)) + len(payload).to_bytes(2, "big") + payload

    data = b"".join(framed(first, payload) for first, payload in frames)
    scrubber = FrameScrubber(needles())
    out = b"".join(scrubber.feed(piece) for piece in pieces(data, cuts)) + scrubber.end()
    clean = [(first, payload.replace(SECRET, PLACEHOLDER)) for first, payload in frames]
    assert out == b"".join(framed(first, payload) for first, payload in clean)


@given(st.binary(max_size=200), st.lists(st.integers(0, 500)))
def test_decompression_ends_or_is_refused(data: bytes, cuts: list[int]) -> None:
    inflate = Inflate()
    with contextlib.suppress(UnreadableAnswerError):
        for piece in pieces(data, cuts):
            for out in inflate.feed(piece):
                assert len(out) <= 1 << 16
        inflate.end()


@given(st.binary(max_size=60))
def test_an_authority_is_one_host_or_none(text: bytes) -> None:
    if requests.names_host(text, "api.example.test", 443):
        plain = text.lower().removesuffix(b":443").removesuffix(b":0443").removesuffix(b":00443")
        assert plain.removesuffix(b".") == b"api.example.test"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"TE", b"Upgrade", b"Connection", b"Accept-Encoding", b"X", b"Authorization"]
            ),
            st.binary(max_size=20),
        )
    ),
    st.booleans(),
)
def test_a_request_asks_for_plain_answers(fields: list[tuple[bytes, bytes]], http1: bool) -> None:
    out = request_fields(fields, http1=http1)
    kept = [value for key, value in out if key.lower() == b"accept-encoding"]
    assert kept == [b"identity"]
    assert [pair for pair in out if pair[0] in (b"X", b"Authorization")] == [
        pair for pair in fields if pair[0] in (b"X", b"Authorization")
    ]
