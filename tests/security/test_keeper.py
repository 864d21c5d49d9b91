"""Attacks on the keeper of a sandbox from the host: other users, and clients that send nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.keeper.door import SOCKET
from corral.keeper.store import Record
from corral_guest import wire
from tests.support import leftovers
from tests.support.corral import command, environment, kept, left_behind

NAME = "guarded"
NOBODY = 65534
# Tries to connect to argv[1]; prints the error, or what it is told when it asks.
CONNECT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
try:
    sock.connect(sys.argv[1])
    sock.sendall(bytes.fromhex(sys.argv[2]))
    print("heard", sock.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


def corral(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=cwd or "/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kept sandbox; the path of its keeper's socket."""
    with kept(NAME, NAME, "-d", folder=tmp_path_factory.mktemp("guarded")):
        yield Path(Record(NAME).written_status().run_folder) / SOCKET
    assert leftovers.wait_until_gone(15) == []
    assert left_behind() == []


def frame(body: object) -> bytes:
    data = json.dumps(body).encode()
    return bytes([wire.CONTROL, 0, 0, 0]) + bytes(4) + len(data).to_bytes(4, "big") + data


HELLO = frame({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"version": 1}})


def as_nobody(path: Path) -> str:
    """What a process of another user meets at the socket."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", CONNECT, str(path), HELLO.hex()],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.strip() or done.stderr


def still_well() -> None:
    done = corral("exec", NAME, "--", "echo", "well")
    assert done.stdout == "well\n", done.stderr


def test_everything_of_a_keeper_is_its_users_alone(guarded: Path) -> None:
    for path in (guarded, *Record(NAME).folder.iterdir()):
        found = path.lstat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode) & 0o077) == (os.getuid(), 0), path
    for folder in (guarded.parent, guarded.parent.parent, Record(NAME).folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_cannot_connect_to_a_keeper(guarded: Path) -> None:
    """Not through the folder; and with every folder and the socket open, the keeper hangs up."""
    assert as_nobody(guarded) == "PermissionError"
    folders = [guarded, *list(guarded.parents)[:-1]]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in folders}
    try:
        for path in folders:
            path.chmod(before[path] | 0o777)
        assert as_nobody(guarded) in ("heard b''", "ConnectionResetError", "BrokenPipeError")
    finally:
        for path, mode in before.items():
            path.chmod(mode)
    still_well()


def nonsense(seed: int) -> bytes:
    """Frames that are nearly right, and bytes that are not."""
    dice = random.Random(seed)
    said = HELLO if dice.random() < 0.8 else b""
    for number in range(dice.randrange(1, 8)):
        kind = dice.randrange(5)
        if kind == 0:
            said += dice.randbytes(dice.randrange(1, 200))
        elif kind == 1:
            header = bytes([dice.randrange(8), 0, 0, 0])
            said += header + dice.randbytes(4) + dice.randrange(1 << 21).to_bytes(4, "big")
        else:
            method = dice.choice(["exec", "signal", "resize", "follow", "kill", "inspect", "?"])
            params = {
                name: dice.choice([None, -1, 1 << 60, "x", [], {}, {"stdin": 2}, ["sh"]])
                for name in ("exec", "argv", "streams", "environment", "signal", "what", "stream")
                if dice.random() < 0.6
            }
            body = {"jsonrpc": "2.0", "id": number + 2, "method": method, "params": params}
            said += frame(body)
    return said


def test_no_client_can_end_a_keeper_by_what_it_sends(guarded: Path) -> None:
    keeper = Record(NAME).written_status().keeper
    for seed in range(300):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(5)
            sock.connect(str(guarded))
            sock.sendall(nonsense(seed))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    still_well()
    assert Record(NAME).written_status().keeper == keeper
    assert (Record(NAME).folder / "keeper.log").read_text() == ""


def test_clients_that_only_stay_connected_keep_nobody_out(guarded: Path) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(64):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(guarded))
            sock.sendall(HELLO[:5])
        still_well()


def test_a_guest_finds_nothing_of_its_keeper(guarded: Path) -> None:
    script = f"ls -d {guarded} {Record(NAME).folder} 2>/dev/null; ls /proc | grep -c '^[0-9]'"
    done = corral("exec", NAME, "--", "sh", "-c", script)
    assert done.stdout.strip().isdecimal(), done.stdout
