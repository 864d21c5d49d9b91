"""Names, connections out and in, in a network namespace of the test's own: no device, no machine.

Each case runs in a process of its own that bubblewrap gives such a namespace.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.host import Need, measure
from corral_guest import names, wire
from corral_guest.flows import Share
from corral_guest.forwarder import Forwarder
from corral_guest.loop import READ

from .conftest import Bench, carried
from .test_names import query

PORTS = [80, 443]
ROOT = Path(__file__).resolve().parents[3]


class Jail:
    """An agent as the forwarder knows it, in the namespace that we are in anyway."""

    number = 1

    def __init__(self) -> None:
        self.share = Share()

    def in_network(self, work: Callable[[], Any]) -> Any:
        return work()


class World(Bench):
    """A forwarder with one agent, whose programs this process plays, and so it does the host."""

    def __init__(self, **setup: Any) -> None:
        super().__init__()
        self.forwarder = Forwarder(self.loop, self.guest)
        jail: Any = Jail()
        self.jail = jail
        given = {"ports": PORTS, "networks": [], "connections": 8, **setup}
        self.forwarder.begin(jail, given)
        self.events: list[wire.Event] = []

    def go(self, times: int = 3) -> None:
        """Some turns, in which host and guest hear each other."""
        for _ in range(times):
            self.turn()
            self.forwarder.room()
            self._host_hears()
            for event in self.answer():
                self.forwarder.handle(event)

    def _host_hears(self) -> None:
        for event in self.host.receive(self.guest.take_output()):
            if isinstance(event, wire.Message) and event.body.get("method") == "connect":
                self.host.open(event.body["params"]["stream"])
            if isinstance(event, wire.Data):
                self.host.consumed(event.stream, len(event.data))
            self.events.append(event)

    def asked(self) -> list[tuple[str, int, int]]:
        """The connections that the host was asked for since: name, port, stream."""
        found, rest = [], []
        for event in self.events:
            if isinstance(event, wire.Message) and event.body.get("method") == "connect":
                params = event.body["params"]
                assert params["agent"] == 1
                found.append((params["name"], params["port"], params["stream"]))
            else:
                rest.append(event)
        self.events = rest
        return found

    def resolve(self, name: str, kind: int = 1) -> bytes:
        """The whole answer of the name server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(5)
            asker.sendto(query(name, kind), (names.NAME_SERVER, 53))
            self.go()
            return asker.recv(2000)

    def address(self, name: str) -> str:
        return socket.inet_ntoa(self.resolve(name)[-4:])

    def connect(self, address: str, port: int = 443) -> socket.socket:
        made = socket.create_connection((address, port), timeout=5)
        self.go()
        return made


def case_a_name_is_dialled_by_its_address() -> None:
    world = World()
    first, second = world.address("a.test"), world.address("b.test")
    assert first != second
    assert first.startswith("198.1")
    program = world.connect(second)
    ((name, port, stream),) = world.asked()
    assert (name, port, stream) == ("b.test", 443, 1)
    program.sendall(b"hello")
    world.go()
    assert carried(world.events) == b"hello"
    world.host.send(stream, b"welcome")
    world.go()
    assert program.recv(100) == b"welcome"
    world.connect(first, 80)
    assert world.asked() == [("a.test", 80, 3)]


def case_what_nobody_has_named_is_not_there() -> None:
    world = World()
    world.address("a.test")
    for address in ("198.18.77.77", "127.0.0.1", names.NAME_SERVER):
        program = world.connect(address)
        try:
            assert program.recv(1) == b"", address
            raise AssertionError(address)
        except ConnectionResetError:
            pass
    assert world.asked() == []


def case_other_ports_and_other_addresses_are_refused_at_once() -> None:
    world = World()
    address = world.address("a.test")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 8443), timeout=5)
    with pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    quic = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    quic.settimeout(5)
    quic.connect((address, 443))
    quic.send(b"x" * 1200)
    with pytest.raises(ConnectionRefusedError):
        quic.recv(10)


def case_addresses_that_a_rule_names_are_dialled_as_such() -> None:
    networks = ["192.0.2.0/24"]
    if socket.has_ipv6 and Path("/proc/sys/net/ipv6").exists():
        networks.append("2001:db8::/32")
    world = World(networks=networks)
    world.connect("192.0.2.9")
    assert world.asked() == [("192.0.2.9", 443, 1)]
    if len(networks) > 1:
        world.connect("2001:db8::5", 80)
        assert world.asked() == [("2001:db8::5", 80, 3)]
        with pytest.raises(ConnectionResetError):
            world.connect("::1").recv(1)
    with pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection(("198.51.100.1", 443), timeout=5)


def case_in_mode_internet_every_address_is() -> None:
    world = World(networks=["0.0.0.0/0", "::/0"])
    world.connect("192.0.2.9")
    world.connect("203.0.113.200", 80)
    assert [(name, port) for name, port, _ in world.asked()] == [
        ("192.0.2.9", 443),
        ("203.0.113.200", 80),
    ]
    with pytest.raises(ConnectionResetError):
        world.connect("127.0.0.1").recv(1)


def case_the_host_refuses() -> None:
    world = World()
    program = world.connect(world.address("a.test"))
    ((_name, _port, stream),) = world.asked()
    world.host.reset(stream, "denied")
    world.go()
    with pytest.raises(ConnectionResetError):
        program.recv(1)


def case_who_opens_too_many_waits_and_others_do_not_notice() -> None:
    world = World(connections=4)
    address = world.address("a.test")
    programs = [world.connect(address) for _ in range(12)]
    asked = world.asked()
    assert len(asked) == 4
    world.host.reset(asked[0][2])
    world.go()
    assert len(world.asked()) == 1  # the place of the one that ended
    for program in programs:
        program.close()
    world.go(20)
    assert world.guest.open_streams <= 5 + 1
    fds = len(list(Path("/proc/self/fd").iterdir()))
    world.forwarder.end(1)
    assert len(list(Path("/proc/self/fd").iterdir())) < fds


def case_a_flood_of_questions_leaves_turns_to_others() -> None:
    world = World()
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(100):
        asker.sendto(query(f"n{number}.test"), (names.NAME_SERVER, 53))
    turns: list[int] = []
    other = os.eventfd(1)
    world.loop.watch(other, READ, lambda _events: turns.append(1))
    world.turn()
    answered = 0
    asker.setblocking(False)
    try:
        while asker.recv(2000):
            answered += 1
    except BlockingIOError:
        pass
    assert turns
    assert 0 < answered <= 16


def case_names_over_tcp() -> None:
    world = World()
    client = world.connect(names.NAME_SERVER, 53)
    question = query("a.test")
    client.sendall(len(question).to_bytes(2, "big") + question[:10])
    world.go()
    client.sendall(question[10:])
    world.go()
    answer = client.recv(2000)
    assert int.from_bytes(answer[:2], "big") == len(answer) - 2
    assert socket.inet_ntoa(answer[-4:]) == world.address("a.test")
    client.sendall(b"\xff\xff")
    world.go()
    assert client.recv(10) == b""
    many = [world.connect(names.NAME_SERVER, 53) for _ in range(40)]
    many[-1].sendall(len(question).to_bytes(2, "big") + question)
    world.go()
    assert many[-1].recv(2000)
    assert select.select([many[0]], [], [], 5)[0]  # closed for those that came later
    assert world.asked() == []


def case_the_port_of_names_may_be_one_of_the_policys() -> None:
    world = World(ports=[53])
    world.connect(world.address("a.test"), 53)
    assert world.asked() == [("a.test", 53, 1)]


def case_the_host_dials_a_port_of_the_loopback() -> None:
    world = World()
    families = [(socket.AF_INET, "127.0.0.1")]
    if Path("/proc/sys/net/ipv6").exists():
        families.append((socket.AF_INET6, "::1"))
    for number, (family, address) in enumerate(families):
        server = socket.socket(family, socket.SOCK_STREAM)
        server.bind((address, 0))
        server.listen(1)
        stream = 4 + 2 * number
        world.host.open(stream)
        params = {"stream": stream, "port": server.getsockname()[1]}
        world.forwarder.dial(10 + number, params, world.jail)
        world.go()
        answers = [event.body for event in world.events if isinstance(event, wire.Message)]
        assert answers[-1] == wire.response(10 + number, {})
        program, _peer = server.accept()
        world.host.send(stream, b"in")
        world.go()
        assert program.recv(10) == b"in"
        program.sendall(b"out")
        world.go()
        assert carried(world.events).endswith(b"out")


def case_nobody_listens_where_the_host_dials() -> None:
    world = World()
    world.host.open(4)
    world.forwarder.dial(10, {"stream": 4, "port": 9}, world.jail)
    world.go()
    bodies = [event.body for event in world.events if isinstance(event, wire.Message)]
    assert bodies[-1]["error"]["data"] == {"errno": 111}
    assert any(isinstance(event, wire.Reset) for event in world.events)


def case_another_host_resets_what_was_open_and_names_stay() -> None:
    world = World()
    address = world.address("a.test")
    program = world.connect(address)
    assert len(world.asked()) == 1
    world.guest, world.host = wire.Connection(), wire.Connection()
    world.forwarder.attach(world.guest)
    with pytest.raises(ConnectionResetError):
        program.recv(1)
    world.connect(address)
    assert [(name, port) for name, port, _ in world.asked()] == [("a.test", 443)]


CASES = sorted(name for name in globals() if name.startswith("case_"))


@pytest.mark.parametrize("case", CASES)
def test_in_a_network_namespace(case: str) -> None:
    bwrap = measure(need=Need(kvm=False, user_namespaces=False)).bwrap
    assert bwrap is not None, "bubblewrap is needed: corral doctor --fix"
    done = subprocess.run(
        [
            *(*bwrap.argv, "--unshare-user", "--unshare-net", "--uid", "0", "--gid", "0"),
            *("--cap-add", "ALL", "--dev-bind", "/", "/", "--"),
            *(sys.executable, "-c", f"from {__name__} import {case}; {case}()"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
