"""Control messages are strict JSON-RPC 2.0; anything else ends the connection."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_guest import wire
from corral_guest.control import MAX_DEPTH, decode_body, encode_body, parse_message

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_what_is_encoded_is_decoded(body: dict[str, Any]) -> None:
    assert decode_body(encode_body(body)) == body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "null",
        "{} {}",
        '{"a":1,"a":2}',
        '{"x":{"a":1,"a":1}}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":-1e999}',
        '{"a":' + "9" * 21 + "}",
        '{"a":' + "9" * 100_000 + "}",
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":"\n"}',
        "{'a':1}",
        '{"a":1,}',
        "\ufeff{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
    ],
)
def test_what_is_not_one_plain_json_object_is_refused(text: str) -> None:
    with pytest.raises(wire.ProtocolError):
        decode_body(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(wire.ProtocolError):
        decode_body(b'{"a":"\xff"}')


def test_wide_messages_are_not_taken_for_deep_ones() -> None:
    assert len(decode_body(b'{"a":[' + b"{}," * 1000 + b"[]]}")["a"]) == 1001


def test_escaped_characters_beyond_the_basic_plane_are_fine() -> None:
    assert decode_body(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_protocol_error(garbage: bytes) -> None:
    with suppress(wire.ProtocolError):
        parse_message(decode_body(garbage))


@given(st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"]),
                       st.just("2.0") | st.just(1) | st.just("run") | json_values))  # fmt: skip
def test_any_object_is_parsed_or_refused(body: dict[str, Any]) -> None:
    with suppress(wire.ProtocolError):
        parse_message(body)


def test_the_four_messages_are_parsed_to_what_was_built() -> None:
    call = parse_message(wire.request(7, "exec.start", {"a": 1}))
    assert isinstance(call, wire.Request)
    assert (call.id, call.method, call.params) == (7, "exec.start", {"a": 1})
    note = parse_message(wire.notification("ready"))
    assert isinstance(note, wire.Notification) and note.params == {}
    answer = parse_message(wire.response(7, None))
    assert isinstance(answer, wire.Response) and answer.result is None
    failure = parse_message(wire.error(7, 2, "no such file", {"path": "/x"}))
    assert isinstance(failure, wire.Failure)
    assert (failure.code, failure.message, failure.data) == (2, "no such file", {"path": "/x"})


@pytest.mark.parametrize(
    "change",
    [
        {"jsonrpc": "1.0"},
        {"extra": 1},
        {"id": -1},
        {"id": True},
        {"id": "1"},
        {"id": None},
        {"id": 2**53},
        {"id": 1.0},
        {"method": ""},
        {"method": "Exec"},
        {"method": "../x"},
        {"method": "a" * 65},
        {"method": ["exec"]},
        {"params": []},
        {"params": None},
        {"result": 1},
    ],
)
def test_a_request_with_a_wrong_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(wire.ProtocolError):
        parse_message({**wire.request(1, "exec"), **change})


@pytest.mark.parametrize(
    "error",
    [None, [], {}, {"code": 1}, {"code": "1", "message": ""}, {"code": True, "message": ""},
     {"code": 1, "message": 1}, {"code": 1, "message": "", "data": []},
     {"code": 1, "message": "", "more": 1}],
)  # fmt: skip
def test_an_error_with_wrong_members_is_refused(error: Any) -> None:
    with pytest.raises(wire.ProtocolError):
        parse_message({"jsonrpc": "2.0", "id": 1, "error": error})


def test_sending_what_no_peer_would_take_fails_here_and_queues_nothing() -> None:
    connection = wire.Connection()
    for params in ({"a": "\udcff"}, {"a": float("nan")}, {"a": b"x"}, {"a": "x" * (1 << 20)}):
        with pytest.raises(ValueError):
            connection.send_message(wire.notification("x", params))
    assert connection.pending_output == 0


def test_an_error_message_with_stray_bytes_can_be_sent() -> None:
    body = wire.error(1, 2, "no such file: \udcff")
    assert json.loads(encode_body(body))["error"]["message"] == "no such file: \\udcff"
