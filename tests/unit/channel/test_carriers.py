"""Over vsock only the guest that knows the secret gets the channel."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.channel import accept_guest, carriers, prove_guest, serial_pair
from corral.errors import ChannelError
from corral_guest import proof

SECRET = bytes(range(32))
GUEST, HOST = b"g" * 32, b"h" * 32


def prove_as_guest(sock: socket.socket, secret: bytes) -> None:
    """What the guest does, with blocking calls."""
    nonce = os.urandom(proof.NONCE_BYTES)
    sock.sendall(nonce)
    answer = sock.recv(proof.ANSWER_BYTES, socket.MSG_WAITALL)
    sock.sendall(proof.guest_answer(secret, nonce, answer))


def test_both_ends_are_convinced_by_the_secret() -> None:
    answer = proof.host_answer(SECRET, GUEST, HOST)
    digest = proof.guest_answer(SECRET, GUEST, answer)
    proof.check_guest(SECRET, GUEST, HOST, digest)
    assert SECRET not in answer + digest


@pytest.mark.parametrize("answer", [b"", bytes(32), bytes(64), bytes(63), bytes(65)])
def test_a_host_without_the_secret_convinces_no_guest(answer: bytes) -> None:
    with pytest.raises(proof.ProofError):
        proof.guest_answer(SECRET, GUEST, answer)


def test_neither_the_hosts_own_answer_nor_an_older_one_convinces_the_host() -> None:
    answer = proof.host_answer(SECRET, GUEST, HOST)
    old = proof.guest_answer(SECRET, GUEST, proof.host_answer(SECRET, GUEST, b"o" * 32))
    for digest in (answer[32:], old, b"", bytes(32)):
        with pytest.raises(proof.ProofError):
            proof.check_guest(SECRET, GUEST, HOST, digest)


def test_a_secret_of_another_length_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="secret"):
        proof.host_answer(b"short", GUEST, HOST)


async def test_the_guest_proves_itself_and_the_channel_starts_right_behind() -> None:
    ours, theirs = serial_pair()
    with ours, theirs:
        ours.setblocking(False)
        guest = asyncio.to_thread(prove_as_guest, theirs, SECRET)
        await asyncio.gather(prove_guest(ours, SECRET), guest)
        theirs.sendall(b"first frame")
        assert ours.recv(100) == b"first frame"


@pytest.mark.parametrize("said", [b"", b"x" * 31, b"x" * 64])
async def test_who_cannot_prove_the_secret_is_refused(said: bytes) -> None:
    ours, theirs = serial_pair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelError, match="did not prove"):
            await prove_guest(ours, SECRET)


async def test_who_says_nothing_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "PROOF_TIMEOUT", 0.01)
    ours, theirs = serial_pair()
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(ChannelError, match="did not prove"):
            await prove_guest(ours, SECRET)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen(64)
        yield sock


def dial(listener: socket.socket) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(listener.getsockname())
    return sock


async def test_the_guest_gets_through_between_strangers_who_are_hung_up_on(
    listener: socket.socket,
) -> None:
    silent, liar = dial(listener), dial(listener)
    liar.sendall(bytes(64))
    guest = dial(listener)
    with silent, liar, guest:
        proving = asyncio.to_thread(prove_as_guest, guest, SECRET)
        ours, _ = await asyncio.gather(accept_guest(listener, SECRET), proving)
        with ours:
            guest.sendall(b"it is me")
            assert ours.recv(100) == b"it is me"
        assert silent.recv(1) == b""
        assert liar.recv(1000)[64:] == b""


async def test_a_crowd_is_refused_beyond_a_bound(listener: socket.socket) -> None:
    crowd = [dial(listener) for _ in range(carriers.MAX_CANDIDATES + 1)]
    accepting = asyncio.create_task(accept_guest(listener, SECRET))
    crowd[-1].setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(crowd[-1], 1) == b""
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    for sock in crowd[:-1]:
        assert sock.recv(1) == b""
    for sock in crowd:
        sock.close()
