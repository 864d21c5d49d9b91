"""Proof, in both directions, that the other end of a vsock connection knows the secret.

The host kernel lets any local user connect to an AF_VSOCK port, so the channel starts there with

    guest -> host   G, 32 random bytes
    host -> guest   H, 32 random bytes, and BLAKE2b(key=secret, "host" G H)
    guest -> host   BLAKE2b(key=secret, "guest" G H)

The secret itself is never sent, a recorded exchange is useless for another one, and the label
keeps an answer from being turned around. These are pure functions; both ends bring the I/O.
"""

from __future__ import annotations

# hashlib and hmac would load OpenSSL, which the guest does not need otherwise; this is where both
# take these two functions from when there is no OpenSSL.
from _blake2 import blake2b
from _operator import _compare_digest

SECRET_BYTES = 32
NONCE_BYTES = 32
DIGEST_BYTES = 32
ANSWER_BYTES = NONCE_BYTES + DIGEST_BYTES


class ProofError(Exception):
    """The other end does not know the secret, or said something of a wrong length."""


def host_answer(secret: bytes, guest_nonce: bytes, host_nonce: bytes) -> bytes:
    """What the host sends, ANSWER_BYTES long, after the guest's NONCE_BYTES."""
    return host_nonce + _digest(secret, b"host", guest_nonce, host_nonce)


def guest_answer(secret: bytes, guest_nonce: bytes, answer: bytes) -> bytes:
    """Check the host's answer; returns the DIGEST_BYTES to send back. Raises ProofError."""
    host_nonce = answer[:NONCE_BYTES]
    _check(answer[NONCE_BYTES:], _digest(secret, b"host", guest_nonce, host_nonce))
    return _digest(secret, b"guest", guest_nonce, host_nonce)


def check_guest(secret: bytes, guest_nonce: bytes, host_nonce: bytes, digest: bytes) -> None:
    """Check the guest's last message. Raises ProofError."""
    _check(digest, _digest(secret, b"guest", guest_nonce, host_nonce))


def _digest(secret: bytes, label: bytes, guest_nonce: bytes, host_nonce: bytes) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
    if len(guest_nonce) != NONCE_BYTES or len(host_nonce) != NONCE_BYTES:
        raise ProofError("a nonce of a wrong length")
    message = label + guest_nonce + host_nonce
    return blake2b(message, key=secret, digest_size=DIGEST_BYTES).digest()


def _check(given: bytes, wanted: bytes) -> None:
    if not _compare_digest(given, wanted):
        raise ProofError("the other end does not know the secret")
