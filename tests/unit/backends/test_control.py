"""The monitor of a QEMU that ends at the worst moments."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from corral.backends.qemu.control import Monitor
from corral.errors import ProcessError
from corral.proc import Process

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}


def line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def ended() -> Process:
    """A process whose end is noticed last of all."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.2, done.set_result, -9)
    words = SimpleNamespace(ended=asyncio.Event())
    words.ended.set()
    return cast(
        "Process",
        SimpleNamespace(
            exited=done, log=words, explain=lambda: "QEMU was killed", last_words=lambda: None
        ),
    )


def greets_and_ends(sock: socket.socket) -> None:
    with sock:
        sock.sendall(line(GREETING))
        sock.recv(4096)  # qmp_capabilities
        sock.sendall(line({"return": {}}))


async def connected(greets: socket.socket) -> None:
    async with Monitor.connect(greets, ended()):
        await asyncio.sleep(0.3)
        raise ProcessError("QEMU was killed.")


async def test_a_machine_that_ends_just_after_its_greeting_is_a_plain_error() -> None:
    for _ in range(5):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=greets_and_ends, args=(theirs,))
        thread.start()
        with pytest.raises(ProcessError, match="QEMU was killed"):
            await connected(ours)
        thread.join(10)
