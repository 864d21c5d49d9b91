"""What must hold of any bytes that a guest can send the gateway, or an upstream can answer."""

from __future__ import annotations

import json
import zlib

from corral.gateway.answers import answer
from corral.gateway.asked import Unpacker, read
from corral.gateway.dialects import Kind, Refusal, error_body, route
from corral.gateway.flow import Flow
from corral.gateway.headers import query
from corral.gateway.prices import table
from corral.gateway.redact import Secrets
from corral.policy import ANTHROPIC, OPENAI, Gateway

KEY = "sk-ant-abcabcabd/+="
GATEWAYS = tuple(
    Gateway(
        name="a",
        dialect=dialect,
        upstream="https://u.test",
        key=None,
        models=("claude-*", "gpt-5"),
        budget_usd=1.0,
    )
    for dialect in (ANTHROPIC, OPENAI)
)
KINDS: tuple[Kind, ...] = ("messages", "chat", "responses", "completions", "embeddings", "count")


def requests(data: bytes) -> None:
    """What is passed on is what was checked: a known path, an allowed model; or it is refused."""
    line, _, body = data.partition(b"\n")
    path, _, asked_for = line.decode("latin-1").partition("?")
    for gateway in GATEWAYS:
        try:
            found = route(gateway.dialect, "POST", path)
            assert not set(found.path) & set("%?#\\ ") and ".." not in found.path
            assert not {"key", "token"} & {part.partition("=")[0] for part in query(asked_for)}
        except Refusal as refusal:
            json.loads(error_body(gateway.dialect, refusal))
        for kind in KINDS:
            for encoding in ("", "gzip"):
                try:
                    asked = read(kind, gateway, _unpacked(body, encoding), table())
                except Refusal as refusal:
                    json.loads(error_body(gateway.dialect, refusal))
                    continue
                said = json.loads(asked.body)
                assert said["model"] == asked.model
                assert asked.model == "gpt-5" or asked.model.startswith("claude-")


def _unpacked(body: bytes, encoding: str) -> bytes:
    unpacker = Unpacker(encoding)
    plain = b"".join(unpacker.feed(body))
    unpacker.end()
    return plain


def answers(data: bytes) -> None:
    """However an answer is cut, the same goes on, without the key; and nothing makes it fail."""
    size, encoding = (data[0] or 1, ("", "gzip")[data[1] & 1]) if len(data) > 1 else (1, "")
    body = data[2:].replace(b"KEY", KEY.encode())
    for kind in KINDS[:3]:
        for events in (False, True):
            whole = _passed(kind, body, 1 << 20, encoding, events)
            parts = _passed(kind, body, size, encoding, events)
            assert whole == parts
            assert whole is None or KEY.encode() not in whole


def _passed(kind: Kind, body: bytes, size: int, encoding: str, events: bool) -> bytes | None:
    gatherer = answer(kind)
    flow = Flow(gatherer, Secrets((KEY,)), encoding=encoding, events=events)
    passed = b""
    try:
        for at in range(0, len(body), size):
            passed += b"".join(flow.feed(body[at : at + size]))
    except zlib.error:
        return None
    passed += flow.end()
    used = gatherer.settled(len(body))
    assert used.input >= 0 and used.output >= 0
    table().cost("claude-opus-5", used)
    assert encoding or len(passed) == len(body)
    return passed
