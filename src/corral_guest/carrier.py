"""The guest's end of the channel: a virtio-serial port, or a vsock connection to the host.

Which one is decided by what the machine has: QEMU gives a guest exactly one of them.
"""

from __future__ import annotations

import os
import socket

from . import boot, proof

PORT_NAME = "corral"
VSOCK_PORT = 5000
_PORTS = "/sys/class/virtio-ports"
_DEVICE_TIMEOUT = 30.0


def connect(secret: bytes | None) -> int:
    """A connected descriptor. With a secret, over vsock, both ends prove that they know it."""
    events = boot.DeviceEvents()
    found: list[int] = []

    def attempt() -> None:
        found.append(_serial() if secret is None else _vsock(secret))

    try:
        events.retry(attempt, _DEVICE_TIMEOUT)
    finally:
        events.close()
    return found[0]


def _serial() -> int:
    for name in os.listdir(_PORTS):
        if boot.read(f"{_PORTS}/{name}/name").strip() == PORT_NAME:
            return os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(2, "no virtio-serial port", PORT_NAME)


def _vsock(secret: bytes) -> int:
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        connection.connect((socket.VMADDR_CID_HOST, VSOCK_PORT))
        nonce = os.urandom(proof.NONCE_BYTES)
        connection.sendall(nonce)
        answer = b""
        while len(answer) < proof.ANSWER_BYTES:
            part = connection.recv(proof.ANSWER_BYTES - len(answer))
            if not part:
                raise ConnectionResetError(104, "the host closed the connection", "vsock")
            answer += part
        connection.sendall(proof.guest_answer(secret, nonce, answer))
    except BaseException:
        connection.close()
        raise
    return connection.detach()
