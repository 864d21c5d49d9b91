"""Debug shells: nobody without the secret, bounded, and all gone with the connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from corral_guest import debug
from corral_guest.commands import Command
from corral_guest.jails import Jails
from corral_guest.loop import Loop

SECRET = "5ec7e7" * 10


class Groups(set[int]):
    """Control groups of an agent's commands."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def make(self, number: int) -> int:
        self.add(number)
        return os.open(os.devnull, os.O_WRONLY)

    def end(self, number: int, _then: object, *, begun: bool) -> None:
        if begun:
            self.discard(number)
            self.killed.append(number)


class Agent:
    """A jail that starts `cat` in place of a shell: what is typed comes back by the terminal."""

    def __init__(self) -> None:
        self.groups = Groups()
        self.requests: list[dict[str, Any]] = []

    def request(self, message: dict[str, Any], fds: list[int]) -> None:
        os.fstat(fds[0])
        self.requests.append(message)


class World:
    """A guest whose ports are Unix sockets. agent: None when its jail has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent: Agent | None = Agent()
        self.loop = Loop()
        self.shells = _Shells(self.loop, cast("Jails", self), folder)
        self.shells.listen(
            0,
            {"agent": 2, "secret": SECRET, "argv": ["sh"], "env": {"A": "b"}, "cwd": "/workspace"},
        )
        self.slaves: list[int] = []

    # As Jails

    def find(self, number: int) -> Any:
        assert number == 2
        if self.agent is None:
            raise OSError(0, "the jail has ended")
        return self.agent

    def start(
        self, _commands: object, command: Command, message: dict[str, Any], fds: list[int]
    ) -> None:
        assert self.agent is not None
        fds.insert(0, self.agent.groups.make(command.number))
        self.agent.request(message, fds)
        os.close(fds[0])

    # From outside

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(self.folder / "6002"))
        client.settimeout(5)
        self.turn()
        return client

    def turn(self, seconds: float = 0.05) -> None:
        """Let the guest deal with all that is there."""
        epoll = self.loop._epoll
        while events := epoll.poll(seconds):
            for fd, happened in events:
                callback = self.loop._callbacks.get(fd)
                if callback is not None:
                    callback(happened)

    def starts(self) -> None:
        """The jail starts the shell that was asked for last."""
        assert self.agent is not None
        master, slave = os.openpty()
        self.slaves.append(slave)
        number = self.agent.requests[-1]["id"]
        shell = self.shells.find(number)
        assert shell is not None
        self.shells.started(shell, master)
        self.turn()

    def ends(self, number: int) -> None:
        """The jail says that a shell has ended."""
        shell = self.shells.find(number)
        assert shell is not None
        self.shells.exited(shell, 137)
        assert self.shells.find(number) is None


class _Shells(debug.Shells):
    def __init__(self, loop: Loop, jails: Jails, folder: Path) -> None:
        super().__init__(loop, jails)
        self._folder = folder

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self._folder / str(port)))
        sock.listen(8)
        sock.setblocking(False)
        return sock


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for slave in made.slaves:
        os.close(slave)


def closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:  # with something of ours unread
        return True


def test_who_says_the_secret_gets_a_terminal_of_the_agents(world: World) -> None:
    client = world.connect()
    client.sendall(f"{SECRET}\nearly\r".encode())
    world.turn()
    assert world.agent is not None
    [message] = world.agent.requests
    assert message["id"] < 0 and message["terminal"] == (24, 80) and not message["builtin"]
    assert (message["argv"], message["env"], message["cwd"]) == (["sh"], {"A": "b"}, "/workspace")
    world.starts()
    assert os.read(world.slaves[0], 100) == b"early\n"
    os.write(world.slaves[0], b"answer")
    world.turn()
    assert b"answer" in client.recv(100)
    client.close()
    world.turn()
    assert world.agent.groups.killed == [message["id"]]
    world.ends(message["id"])  # until then it is a command of the agent's, which hears of its end
    assert world.shells.of_agent(cast("Any", world.agent)) == []


@pytest.mark.parametrize(
    "said",
    [
        b"wrong\n",
        b"\n",
        SECRET[:-1].encode() + b"\n",
        (SECRET + "0").encode() + b"\n",
        SECRET.upper().encode() + b"\n",
        b"x" * 5000,
        b"\xff\x00\n",
        b" " + SECRET.encode() + b"\n",
    ],
)
def test_who_says_anything_else_is_sent_away_without_a_word(world: World, said: bytes) -> None:
    client = world.connect()
    client.sendall(said)
    world.turn()
    assert closed(client)
    assert world.agent is not None and world.agent.requests == []


def test_who_says_nothing_is_sent_away_in_time_and_keeps_nobody_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [world.connect() for _ in range(debug.MAX_WAITING + 2)]
    assert closed(silent[0]) and closed(silent[1])
    client = world.connect()
    client.sendall(SECRET.encode()[:20])
    world.turn()
    client.sendall(SECRET.encode()[20:] + b"\r\n")
    world.turn()
    assert world.agent is not None and len(world.agent.requests) == 1
    monkeypatch.setattr(debug, "SECONDS", -1)
    world.shells.beat()
    assert all(closed(each) for each in silent[2:])
    world.starts()
    os.write(world.slaves[0], b"still")
    world.turn()
    assert client.recv(5) == b"still"


def test_there_are_only_so_many_shells_and_the_silent_one_makes_way(world: World) -> None:
    """A client that left with something unread is never heard of again."""
    clients = []
    for _ in range(debug.MAX_SHELLS):
        clients.append(world.connect())
        clients[-1].sendall(f"{SECRET}\n".encode())
        world.turn()
        world.starts()
    clients[0].sendall(b"true\r")  # now the second was silent for longest
    world.turn()
    clients.append(world.connect())
    clients[-1].sendall(f"{SECRET}\n".encode())
    world.turn()
    world.starts()
    assert b"takes this one's place" in clients[1].recv(200)
    assert closed(clients[1])
    assert world.agent is not None
    numbers = [request["id"] for request in world.agent.requests]
    assert len(numbers) == debug.MAX_SHELLS + 1
    assert world.agent.groups.killed == [numbers[1]]
    os.write(world.slaves[-1], b"here")
    world.turn()
    assert clients[-1].recv(100).endswith(b"here")


def test_a_jail_that_is_gone_is_said(world: World) -> None:
    world.agent = None
    client = world.connect()
    client.sendall(f"{SECRET}\n".encode())
    world.turn()
    assert client.recv(200) == b"corral: the jail has ended\r\n"
    assert closed(client)


def opened(world: World) -> tuple[socket.socket, debug.Shell]:
    client = world.connect()
    client.sendall(f"{SECRET}\n".encode())
    world.turn()
    world.starts()
    assert world.agent is not None
    [shell] = world.shells.of_agent(cast("Any", world.agent))
    return client, cast("debug.Shell", shell)


def test_what_a_shell_says_last_is_brought_out(world: World) -> None:
    client, shell = opened(world)
    os.write(world.slaves[0], b"bye\n")
    world.shells.exited(shell, 0)
    assert client.recv(100) == b"bye\r\n"
    assert closed(client)


def test_little_is_held_of_either_side_that_does_not_read(world: World) -> None:
    client, shell = opened(world)
    os.set_blocking(world.slaves[0], False)

    def flood(write: Callable[[], int]) -> None:
        for _ in range(400):
            with contextlib.suppress(BlockingIOError):
                write()
            world.turn(0)

    flood(lambda: os.write(world.slaves[0], b"x" * 4096))
    client.setblocking(False)
    flood(lambda: client.send(b"y" * 4096))
    assert len(shell.to_connection) <= 2 * 65536 and len(shell.to_terminal) <= 2 * 65536
    client.setblocking(True)
    got = 0
    deadline = time.monotonic() + 20
    while got <= 20000:  # and it goes on, as fast as the kernel hands on what a terminal holds
        assert time.monotonic() < deadline, got
        if select.select([client], [], [], 0.05)[0]:
            got += len(client.recv(65536))
        world.turn(0)


def test_a_client_that_goes_takes_its_shell_with_it_also_before_it_started(world: World) -> None:
    client = world.connect()
    client.sendall(f"{SECRET}\n".encode())
    world.turn()
    client.close()
    assert world.agent is not None
    number = world.agent.requests[-1]["id"]
    world.starts()
    assert world.agent.groups.killed == [number]


def test_a_shell_that_has_to_make_way_before_it_started_is_killed_when_it_has(
    world: World,
) -> None:
    """The jail is heard of it: its control group, which waits for that, is killed and removed."""
    clients = []
    for _ in range(debug.MAX_SHELLS + 1):
        clients.append(world.connect())
        clients[-1].sendall(f"{SECRET}\n".encode())
        world.turn()
    assert b"takes this one's place" in clients[0].recv(200) and closed(clients[0])
    assert world.agent is not None
    first = world.agent.requests[0]["id"]
    shell = world.shells.find(first)
    assert shell is not None, "its jail will say that it has started"
    assert first in world.agent.groups, "and its group is killed then"
    master, slave = os.openpty()
    world.slaves.append(slave)
    world.shells.started(shell, master)
    assert shell.terminal < 0 and not shell.request
    with pytest.raises(OSError):
        os.fstat(master)
    world.ends(first)


def test_a_shell_that_has_made_way_and_does_not_start_is_forgotten(world: World) -> None:
    clients = []
    for _ in range(debug.MAX_SHELLS + 1):
        clients.append(world.connect())
        clients[-1].sendall(f"{SECRET}\n".encode())
        world.turn()
    assert world.agent is not None
    shell = world.shells.find(world.agent.requests[0]["id"])
    assert shell is not None
    world.shells.failed(shell, {})
    assert world.shells.find(shell.number) is None
