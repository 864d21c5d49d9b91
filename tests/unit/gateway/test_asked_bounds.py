"""A body that is small on the wire and large in memory is refused before it is read."""

from __future__ import annotations

import time

import pytest

from corral.gateway import asked
from corral.gateway.dialects import Refusal
from corral.gateway.prices import table
from corral.policy import Gateway

GATEWAY = Gateway(name="x", dialect="openai", upstream="https://x.test", key=None)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'{"a":1},', b'"",', b"0,"])
def test_a_body_made_of_nothing_but_structure_is_refused_at_once(piece: bytes) -> None:
    body = b'{"model":"m","messages":[' + piece * ((32 << 20) // len(piece)) + b"0]}"
    began = time.process_time()
    with pytest.raises(Refusal, match="too many parts") as caught:
        asked.read("chat", GATEWAY, body, table())
    assert caught.value.status == 413
    assert time.process_time() - began < 1.0


def test_a_large_body_of_text_passes() -> None:
    text = "for (i, x) in [1, 2, 3] { f(x, i); }\\n" * 40_000
    body = f'{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}'.encode()
    image = b"A" * (24 << 20)
    body = body[:-2] + b',{"role":"user","content":"' + image + b'"}]}'
    assert len(asked.read("chat", GATEWAY, body, table()).body) >= len(image)
