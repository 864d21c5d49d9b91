"""The two ways bytes get to a guest: a virtio-serial port, and vsock with a proof of a secret."""

from __future__ import annotations

import asyncio
import os
import socket

from corral.errors import ChannelError, HostError
from corral_guest import proof

# Proofs that may be under way at once on one listener; a further connection is refused.
MAX_CANDIDATES = 16
# Seconds for one proof: two messages of the guest, which may run under emulation on a busy host.
PROOF_TIMEOUT = 20.0


def serial_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets: ours for `Channel.start`, and the one that QEMU inherits."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


async def prove_guest(sock: socket.socket, secret: bytes) -> None:
    """Prove to the other end of a non-blocking socket that we know the secret, and have it proven.

    Raises ChannelError when the other end fails, or takes longer than PROOF_TIMEOUT.
    """
    host_nonce = os.urandom(proof.NONCE_BYTES)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROOF_TIMEOUT):
            guest_nonce = await _receive(sock, proof.NONCE_BYTES)
            await loop.sock_sendall(sock, proof.host_answer(secret, guest_nonce, host_nonce))
            digest = await _receive(sock, proof.DIGEST_BYTES)
        proof.check_guest(secret, guest_nonce, host_nonce, digest)
    except (proof.ProofError, OSError, EOFError) as error:  # TimeoutError is an OSError
        raise ChannelError(
            "what connected to the channel did not prove that it is the guest.",
            detail=str(error) or None,
        ) from error


async def accept_guest(listener: socket.socket, secret: bytes) -> socket.socket:
    """The first connection on a listener that proves the secret; the others are closed.

    It waits without limit: bound it by the boot's.
    """
    listener.setblocking(False)
    candidates: set[socket.socket] = set()
    try:
        async with asyncio.TaskGroup() as group:
            proven: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
            task = group.create_task(_accept(listener, secret, candidates, proven))
            winner = await proven
            task.cancel()
        candidates.discard(winner)
        return winner
    except ExceptionGroup as errors:
        cause: Exception = errors
        while isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from errors
    finally:
        for sock in candidates:
            sock.close()


async def _accept(
    listener: socket.socket,
    secret: bytes,
    candidates: set[socket.socket],
    proven: asyncio.Future[socket.socket],
) -> None:
    async def prove(sock: socket.socket) -> None:
        try:
            await prove_guest(sock, secret)
        except ChannelError:
            candidates.discard(sock)
            sock.close()
        else:
            if not proven.done():
                proven.set_result(sock)

    async with asyncio.TaskGroup() as group:
        while True:
            try:
                sock, _address = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                raise HostError(f"cannot accept the guest: {error.strerror}.") from error
            if len(candidates) >= MAX_CANDIDATES:
                sock.close()
                continue
            candidates.add(sock)
            group.create_task(prove(sock))


async def _receive(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise EOFError("it closed the connection")
        data += piece
    return data
