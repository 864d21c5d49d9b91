"""Debug shells on vsock: for who was told the secret, in the agent's jail, as the agent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.corral import command, environment, kept, left_behind


def corral(*arguments: str, cwd: Path | str = "/") -> str:
    finished = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, timeout=90
    )
    assert finished.returncode == 0, (arguments, finished.stdout, finished.stderr)
    return finished.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `corral inspect` says of the one of agent 1."""
    folder = tmp_path_factory.mktemp("work") / "debugged"
    folder.mkdir()
    with kept("debugged", "-d", "--carrier", "vsock", "--debug-shell", folder=folder):
        [found] = json.loads(corral("inspect", "debugged"))["live"]["debug_shells"]
        yield found
    assert left_behind() == []


@contextlib.contextmanager
def connected(shell: dict[str, Any], port: int | None = None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(shell["socket"])
        client.sendall(f"CONNECT {port or shell['port']}\n".encode())
        yield client


def said(client: socket.socket, until: bytes = b"\0") -> bytes:
    """All of it up to something, or to its end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while until not in data and (piece := client.recv(4096)):
            data += piece
    return data


def test_who_knows_the_secret_gets_a_shell_of_the_agents_and_nobody_else(
    shell: dict[str, Any],
) -> None:
    assert (shell["agent"], shell["port"]) == (1, 6001)
    secret = shell["secret"]
    for wrong in ("", "x", secret[:-1], secret + "0", secret.swapcase() + "x", "\0" * 64):
        with connected(shell) as client:
            assert said(client, b"\n").startswith(b"OK ")
            client.sendall(f"{wrong}\nid\n".encode())
            assert said(client) == b""
    with connected(shell) as client:
        said(client, b"\n")
        client.sendall(
            f"{secret}\necho $((6*7))-$(id -u)-$(hostname)-$(ls /proc | wc -l); tty\n".encode()
        )
        answer = said(client, b"/dev/pts/").decode()
        assert f"42-{os.getuid()}-debugged" in answer
        client.sendall(b"sleep 4711 &\n")
        client.sendall(b"echo begun-$((1+1))\n")
        said(client, b"begun-2")
        assert corral("exec", "debugged", "--", "pgrep", "-fc", "sleep 4711") == "1\n"
        # Of a client that goes with something unread the guest has not always heard.
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while client.recv(4096):
                pass
    deadline = time.monotonic() + 15  # it went with the connection
    looks = ["exec", "debugged", "--", "sh", "-c", "pgrep -fc '[s]leep 4711' || true"]
    while corral(*looks) != "0\n":
        assert time.monotonic() < deadline


def test_only_the_user_reaches_the_socket_and_no_jail_the_port(shell: dict[str, Any]) -> None:
    folder = Path(shell["socket"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    code = (
        "import errno, socket\n"
        "try:\n    socket.socket(40, socket.SOCK_STREAM)\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    assert corral("exec", "debugged", "--", "python3", "-c", code) == "EAFNOSUPPORT\n"
    everywhere = "cat /proc/*/environ /proc/*/cmdline /etc/* 2>/dev/null | tr '\\0' '\\n'; env"
    assert shell["secret"] not in corral("exec", "debugged", "--", "sh", "-c", everywhere)


def test_the_command_that_is_shown_opens_it(shell: dict[str, Any], tmp_path: Path) -> None:
    """With a stand-in for socat, which copies both ways, as that does with these arguments."""
    socat = tmp_path / "socat"
    socat.write_text(
        f"#!{sys.executable}\n"
        "import os, socket, sys, threading\n"
        "assert sys.argv[1] == '-' and sys.argv[2].startswith('UNIX-CONNECT:')\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2].partition(':')[2])\n"
        "def up():\n"
        "    while data := os.read(0, 4096): s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(4096): os.write(1, data)\n"
    )
    socat.chmod(0o755)
    finished = subprocess.run(
        ["sh", "-c", shell["command"]],
        input="echo it-$((40+2)); exit\n",
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert finished.stdout.startswith("OK ")
    assert "it-42" in finished.stdout
