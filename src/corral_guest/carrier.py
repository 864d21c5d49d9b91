"""The guest's end of the channel: a virtio-serial port, on request a vsock connection instead.

Every guest starts on the serial port. What is needed for vsock, the secret, comes over it: so a
machine that was saved while it waited there can be restored for either.
"""

from __future__ import annotations

import os
import socket

from . import boot, proof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PORT_NAME = "corral"
VSOCK_PORT = 5000
_PORTS = "/sys/class/virtio-ports"
_DEVICE_TIMEOUT = 30.0


def serial() -> int:
    """A descriptor of corral's virtio-serial port, once it is there."""
    return _found(_open_port)


def vsock(secret: bytes) -> int:
    """A connection to the host, once there is the device; both ends prove that they know secret."""
    return _found(lambda: _dial(secret))


def _found(attempt: Callable[[], int]) -> int:
    events = boot.DeviceEvents()
    found: list[int] = []
    try:
        events.retry(lambda: found.append(attempt()), _DEVICE_TIMEOUT)
    finally:
        events.close()
    return found[0]


def _open_port() -> int:
    for name in os.listdir(_PORTS):
        if boot.read(f"{_PORTS}/{name}/name").strip() == PORT_NAME:
            return os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(2, "no virtio-serial port", PORT_NAME)


def _dial(secret: bytes) -> int:
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
