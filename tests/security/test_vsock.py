"""The vsock carrier: only who knows the secret is heard; a jail does not even have the family."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.channel import accept_guest
from corral.sandbox import Sandbox
from corral_guest import proof
from tests.security.attacks import from_guest_root, from_jail, refused
from tests.support.sandboxes import run, sandbox_on, shell, succeeded


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    workspace = tmp_path_factory.mktemp("vsock")
    async with sandbox_on(workspace, {"machine.carrier": "vsock"}) as running:
        yield running


SECRET_PLACES = """
places = ["/sys/firmware/qemu_fw_cfg/by_name/opt/corral/secret/raw",
          "/sys/firmware/qemu_fw_cfg/raw", "/dev/mem", "/dev/port", "/dev/vsock", "/proc/kcore"]
for path in places:
    attempt(path, lambda: open(path, "rb").read(64))
os.makedirs("/tmp/sys", exist_ok=True)
try:
    mount("sys", "/tmp/sys", "sysfs")
except OSError:
    pass
for path in places[:2]:
    attempt("/tmp" + path, lambda: open("/tmp" + path, "rb").read(64))
attempt("ports", lambda: check(libc.iopl(3)))
attempt("a port", lambda: check(libc.ioperm(0x510, 4, 1)))
pid = os.getppid()
attempt("memory of what was forked from the supervisor", lambda: open(f"/proc/{pid}/mem", "rb"))
"""


async def test_the_secret_cannot_be_read_from_a_jail(sandbox: Sandbox) -> None:
    outcome = await from_jail(sandbox, SECRET_PLACES)
    assert len(outcome) == 11
    refused(outcome, "ENOENT", "EACCES", "EPERM", "ENOSYS")
    text = succeeded(await shell(sandbox, "cat /proc/cmdline; env; cat /proc/[0-9]*/environ; true"))
    assert "secret" not in text.lower()


async def test_a_jail_cannot_connect_to_the_host(sandbox: Sandbox) -> None:
    outcome = await from_jail(
        sandbox,
        "for kind in (1, 2, 5):\n    attempt(str(kind), lambda: socket.socket(40, kind))\n",
    )
    refused(outcome, "EAFNOSUPPORT")
    assert len(outcome) == 3


async def test_guest_root_reaches_no_other_port_and_no_other_machine(sandbox: Sandbox) -> None:
    outcome = await from_guest_root(
        sandbox,
        """
def connect(cid, port):
    with socket.socket(40, socket.SOCK_STREAM) as s:
        s.settimeout(1.5)
        s.connect((cid, port))
        s.sendall(b"x")
        if not s.recv(1):
            raise ConnectionResetError(errno.ECONNRESET, "closed")
for port in (22, 111, 4999, 5001):
    attempt(f"host {port}", connect, 2, port)
for cid in (0, 3, 4):
    attempt(f"cid {cid}", connect, cid, 5000)
""",
    )
    assert len(outcome) == 7
    refused(
        outcome,
        "ECONNRESET",
        "ECONNREFUSED",
        "ENODEV",
        "ETIMEDOUT",
        "EINVAL",
        "EHOSTUNREACH",
        "timed out",
        "EADDRNOTAVAIL",
        "ENETUNREACH",
        "EPIPE",
        "ENOTCONN",
        "EOPNOTSUPP",
        "EAGAIN",
    )


async def test_a_second_connection_is_not_heard(sandbox: Sandbox) -> None:
    """The listener has had its one guest, and is gone."""
    code = """
import socket
s = socket.socket(40, socket.SOCK_STREAM)
s.settimeout(1.5)
try:
    s.connect((2, 5000))
    s.sendall(bytes(32))
    print("answer:", len(s.recv(64)))
except OSError as error:
    print("answer:", error)
"""
    result = await run(sandbox, "/usr/bin/python3", "-I", "-S", "-c", code, agent=0)
    assert "answer: 64" not in succeeded(result)


async def test_without_the_secret_nobody_becomes_the_guest(tmp_path: Path) -> None:
    """Any local user may connect to a port of the host's vsock: the proof decides."""
    secret = os.urandom(proof.SECRET_BYTES)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        accepting = asyncio.ensure_future(accept_guest(listener, secret))

        def connect() -> socket.socket:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(10)
            client.connect(path)
            return client

        def impostor(last: bytes) -> bytes:
            with connect() as client:
                client.sendall(bytes(32))
                answer = b""
                while len(answer) < proof.ANSWER_BYTES:
                    answer += client.recv(64)
                # Turning the host's own answer around proves nothing.
                client.sendall(answer[32:] if last == b"mirror" else last)
                try:
                    return client.recv(1)
                except ConnectionResetError:
                    return b""

        for last in (b"mirror", bytes(32), os.urandom(32)):
            assert await asyncio.to_thread(impostor, last) == b""
            assert not accepting.done()

        def genuine() -> socket.socket:
            client = connect()
            nonce = os.urandom(32)
            client.sendall(nonce)
            answer = b""
            while len(answer) < proof.ANSWER_BYTES:
                answer += client.recv(64)
            client.sendall(proof.guest_answer(secret, nonce, answer))
            return client

        with await asyncio.to_thread(genuine), await asyncio.wait_for(accepting, 10):
            pass
