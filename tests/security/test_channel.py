"""A guest that has taken over its supervisor can end its own sandbox, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from pathlib import Path

import pytest

from corral.channel import Channel, serial_pair
from corral.errors import (
    ChannelError,
    CorralError,
    GuestError,
    SandboxGoneError,
)
from corral_guest import wire
from tests.support.memory import peak, peak_from_now
from tests.support.sandboxes import guest_root, sandbox_on, shell, succeeded

MIB = 1 << 20


def frame(kind: int, stream: int, payload: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">III", kind << 24, stream, len(payload) if size is None else size) + payload


def control(body: object) -> bytes:
    return frame(wire.CONTROL, 0, json.dumps(body).encode())


MALFORMED = {
    "an unknown kind": frame(77, 0),
    "bytes that are no frame": b"\xff" * 4096,
    "a frame of four gigabytes": frame(wire.CONTROL, 0, b"", (1 << 32) - 1),
    "data of a stream that is not open": frame(wire.DATA, 2, b"x"),
    "credit for nothing": frame(wire.CREDIT, 2, b"\xff\xff\xff\xff"),
    "a list": control([1]),
    "no JSON": frame(wire.CONTROL, 0, b"{"),
    "no text": frame(wire.CONTROL, 0, b"\xff\xfe"),
    "a deep one": frame(wire.CONTROL, 0, b"[" * 100_000),
    "a long number": frame(wire.CONTROL, 0, b'{"a": ' + b"9" * 100_000 + b"}"),
    "a request": control({"jsonrpc": "2.0", "id": 1, "method": "open", "params": {}}),
    "an answer to nothing": control({"jsonrpc": "2.0", "id": 99, "result": {}}),
    "an unknown notification": control({"jsonrpc": "2.0", "method": "x", "params": {}}),
    "a pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_frames_end_the_channel_with_one_clear_error(what: str) -> None:
    ours, guest = serial_pair()
    with guest:
        async with await Channel.start(ours) as channel:
            guest.sendall(MALFORMED[what])
            async with asyncio.timeout(10):
                error = await channel.wait_closed()
    assert isinstance(error, ChannelError)
    assert error.message.replace("\n", "").isprintable()


async def test_text_of_a_guest_drives_no_terminal() -> None:
    ours, guest = serial_pair()
    hostile = "\x1b]0;owned\x07\x1b[21t\x9b6n\u202e\r"
    with guest:
        async with await Channel.start(ours) as channel:
            call = asyncio.ensure_future(channel.call("exec", {}))
            await asyncio.sleep(0)
            answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": hostile}}
            guest.sendall(control(answer))
            with pytest.raises(GuestError) as caught:
                await call
    assert caught.value.message.replace("\n", "").isprintable()
    assert "owned" in caught.value.message


async def _flood(data: bytes) -> tuple[int, CorralError | None]:
    """A guest that sends `data` again and again and reads nothing; returns the bytes it could."""
    ours, guest = serial_pair()
    guest.setblocking(False)
    loop = asyncio.get_running_loop()
    sent = 0
    with guest:
        async with await Channel.start(ours, {"exited": lambda _params: None}) as channel:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    while sent < 64 * MIB and channel.failure is None:
                        await loop.sock_sendall(guest, data)
                        sent += len(data)
            return sent, channel.failure


@pytest.mark.parametrize("what", ["notifications", "resets", "long messages"])
async def test_a_flood_takes_no_memory(what: str) -> None:
    note = {"jsonrpc": "2.0", "method": "exited", "params": {}}
    long = note | {"params": {"a": "x" * (wire.MAX_CONTROL - 200)}}
    data = {
        "notifications": control(note) * 1000,
        "resets": frame(wire.RESET, 2, b"x") * 5000,  # each wants an answer, which nobody reads
        "long messages": control(long),
    }[what]
    before = peak_from_now()
    sent, failure = await _flood(data)
    assert sent > 4 * MIB or isinstance(failure, ChannelError)
    grown = peak() - before
    assert grown < 48 * MIB, f"{grown >> 20} MiB for {sent >> 20} MiB of {what}"


TAKE_PORT = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
pidfd = os.pidfd_open(1)
ports = [n for n in os.listdir("/proc/1/fd")
         if os.readlink(f"/proc/1/fd/{n}").startswith("/dev/vport")]
port = libc.syscall(438, pidfd, int(ports[0]), 0)
assert port >= 0, os.strerror(ctypes.get_errno())
os.set_blocking(port, True)
"""


@pytest.mark.parametrize(
    "attack",
    [
        "while True: os.write(port, b'\\xff' * 4096)",
        "os.write(port, b'\\x01\\0\\0\\0\\0\\0\\0\\0\\xff\\xff\\xff\\xff' + b'x' * 4096)",
    ],
    ids=["garbage", "a frame without end"],
)
async def test_guest_root_that_writes_to_the_channel_ends_its_own_sandbox(
    tmp_path: Path, attack: str
) -> None:
    before = 0
    with pytest.raises((ChannelError, SandboxGoneError)) as caught:
        async with sandbox_on(tmp_path) as sandbox:
            assert succeeded(await shell(sandbox, "echo up")) == "up\n"
            before = peak_from_now()
            await guest_root(sandbox, TAKE_PORT + attack, timeout=30)
    assert "protocol" in caught.value.message or "channel" in caught.value.message
    grown = peak() - before
    assert grown < 64 * MIB


async def test_a_guest_that_stops_its_supervisor_is_noticed_and_ended(tmp_path: Path) -> None:
    """PID 1 cannot be killed from inside; traced and stopped, it answers nothing more."""
    from corral.plan.model import Plan

    async with sandbox_on(tmp_path) as sandbox:
        assert isinstance(sandbox.plan, Plan)
        text = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
os.kill(1, signal.SIGKILL)
os.kill(1, signal.SIGSTOP)
print("sent", flush=True)
"""
        assert succeeded(await guest_root(sandbox, text)) == "sent\n"
        assert succeeded(await shell(sandbox, "echo alive")) == "alive\n", "signals do nothing"
        stop = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, 1, None, None) == 0:
    time.sleep(3600)
"""
        execution = await sandbox.exec(["/usr/bin/python3", "-I", "-S", "-c", stop], agent=0)
        with pytest.raises(CorralError):
            while True:
                async with asyncio.timeout(20):
                    await sandbox._channel.call("sync", timeout=3)
        del execution
    # Leaving the block ended everything, in bounded time, without the guest's help.


async def test_a_closed_carrier_ends_every_waiting_call() -> None:
    ours, guest = socket.socketpair()
    async with await Channel.start(ours) as channel:
        calls = [asyncio.ensure_future(channel.call("x")) for _ in range(10)]
        await asyncio.sleep(0)
        guest.close()
        for call in calls:
            with pytest.raises(SandboxGoneError):
                await call
