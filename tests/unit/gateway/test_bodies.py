"""What bodies take of the memory, and how they are unpacked."""

from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.asked import _PIECE, MAX_BODY, Unpacker
from corral.gateway.bodies import Memory
from corral.gateway.dialects import Refusal


def test_every_agent_has_a_part_that_no_others_can_take() -> None:
    memory = Memory((1, 2, 3, 4), 800)  # 100 for each, and 400
    with memory.room(1) as first, memory.room(1) as second, memory.room(2) as third:
        first.hold(200)
        second.hold(100)  # its part, and half of what is common
        with pytest.raises(Refusal) as refusal:
            second.hold(101)
        assert refusal.value.status == 503 and refusal.value.retry_after
        third.hold(300)  # one agent alone keeps nobody out
        for agent in (3, 4):
            with memory.room(agent) as room:
                room.hold(100)
                with pytest.raises(Refusal):
                    room.hold(101)
        second.hold(50)
        with memory.room(3) as room:
            room.hold(150)
    with memory.room(3) as room:
        room.hold(300)
        assert room.taken == 300


def test_one_agent_alone_has_all_of_it_and_no_body_is_above_the_limit() -> None:
    memory = Memory((1,), 4 * MAX_BODY)
    with memory.room(1) as room:
        with pytest.raises(Refusal) as refusal:
            room.hold(MAX_BODY + 1)
        assert refusal.value.status == 413
    rooms = [memory.room(1).__enter__() for _ in range(4)]
    for room in rooms:
        room.hold(MAX_BODY)


@given(st.integers(0, 3), st.sampled_from([-1, 0, 1, 100]), st.sampled_from([7, 1000, 1 << 20]))
def test_a_body_is_unpacked_as_it_was_however_it_comes(pieces: int, more: int, size: int) -> None:
    plain = random.Random(pieces).randbytes(5) * (pieces * _PIECE // 5 + 1)
    plain = plain[: max(0, pieces * _PIECE + more)]
    packed = gzip.compress(plain)
    unpacker, got = Unpacker("gzip"), b""
    for at in range(0, len(packed), size):
        for piece in unpacker.feed(packed[at : at + size]):
            assert len(piece) <= _PIECE
            got += piece
    unpacker.end()
    assert got == plain


GZIP = gzip.compress(b"{}", mtime=0)  # with the time in it, it would name another test each second


@pytest.mark.parametrize("packed", [b"", b"{}", GZIP[:-1], GZIP + b"x", GZIP * 2])
def test_what_is_not_one_gzip_is_refused(packed: bytes) -> None:
    for size in (1, 1000):
        unpacker = Unpacker("gzip")
        with pytest.raises(Refusal, match="not gzip"):
            for at in range(0, len(packed), size):
                list(unpacker.feed(packed[at : at + size]))
            unpacker.end()
