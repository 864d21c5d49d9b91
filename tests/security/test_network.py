"""What an agent with a network reaches: the hosts that are allowed, by their names; nothing else.

Each attack is made as the user's own agent and as root in the jail, which may change its own
network namespace as it likes. Nothing is sent off this machine: what is allowed is on loopback.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from corral.events import Connection, Event
from corral.policy import Publish
from corral.sandbox import Sandbox
from tests.security.attacks import from_guest_root, from_jail, refused
from tests.support.sandboxes import guest_root, python, run, sandbox_on, shell, succeeded
from tests.support.sites import Sites, sites

USERS = ["own", "root"] if os.getuid() else ["root"]


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("internet")) as serving:
        yield serving


@pytest.fixture(scope="module")
def told() -> list[Event]:
    """What was reported of the module's sandboxes."""
    return []


@pytest.fixture(scope="module", params=USERS)
async def sandbox(
    request: pytest.FixtureRequest,
    internet: Sites,
    told: list[Event],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Sandbox]:
    overrides: dict[str, object] = {
        "network.allow": ["web.test"],
        "network.hosts": internet.hosts,
    }
    if request.param == "root":
        overrides["run.user"] = "root"
    folder = tmp_path_factory.mktemp("jail")
    async with sandbox_on(folder, overrides, report=told.append) as running:
        yield running


async def reachable(sandbox: Sandbox) -> bool:
    """The control: whether the host that is allowed answers."""
    done = await run(sandbox, "curl", "-sS", "--max-time", "30", "http://web.test/")
    return done.stdout == "hello\n"


TALK = """
def talk(family, address):
    "Connect, say something, and get an answer."
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(20)
        s.connect(address)
        s.sendall(b"GET / HTTP/1.1\\r\\nHost: web.test\\r\\nConnection: close\\r\\n\\r\\n")
        answer = b""
        while piece := s.recv(1000):
            answer += piece
        # What corral itself answers to say that it refused is no answer of a host.
        if not answer.endswith(b"hello\\n"):
            raise ConnectionResetError(errno.ECONNRESET, "refused")

def ask(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect(address)
        s.send(b"x" * 1200)
        s.recv(10)
V4, V6 = socket.AF_INET, socket.AF_INET6
"""


async def test_only_what_is_allowed_is_connected_to(
    sandbox: Sandbox, told: list[Event], internet: Sites
) -> None:
    """By other names, by addresses of any kind, by addresses of the range that mean nothing."""
    asked = len(internet.asked)
    code = f"HERE = {internet.http}\n{TALK}" + (
        "for name in ('other.test', 'web.test.other.test', 'xweb.test', 'a.web.test',\n"
        "             'pypi.test'):\n"
        "    attempt('name ' + name, talk, V4, (name, 80))\n"
        "for address in ('198.18.99.99', '198.19.255.254', '198.18.0.1', '127.0.0.1', '0.0.0.0',\n"
        "                '192.0.2.1', '10.0.2.2', '192.168.1.1', '169.254.169.254',\n"
        "                '172.17.0.1'):\n"
        "    attempt('port 80 of ' + address, talk, V4, (address, 80))\n"
        "    attempt('server on ' + address, talk, V4, (address, HERE))\n"
        "for address in ('::1', '::ffff:127.0.0.1', '::ffff:192.0.2.1', 'fe80::1', '2001:db8::1',\n"
        "                '64:ff9b::7f00:1', '::ffff:198.18.99.99'):\n"
        "    attempt('6 ' + address, talk, V6, (address, 80))\n"
    )
    outcome = await from_jail(sandbox, code, timeout=110)
    assert len(outcome) == 5 + 20 + 7
    refused(
        outcome,
        *("ECONNRESET", "ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "EACCES"),
    )
    assert outcome["name other.test"] == "ECONNRESET"
    assert outcome["port 80 of 192.0.2.1"] == "ENETUNREACH"
    assert len(internet.asked) == asked
    denied = {event.name for event in told if isinstance(event, Connection) and not event.address}
    assert {"other.test", "a.web.test", "pypi.test"} <= denied
    assert await reachable(sandbox)


async def test_a_port_that_no_rule_names_is_refused_in_the_guest(
    sandbox: Sandbox, told: list[Event]
) -> None:
    code = TALK + (
        "for port in (22, 25, 53, 8080, 65535):\n"
        "    attempt(str(port), talk, V4, ('web.test', port))\n"
    )
    before = len(told)
    refused(await from_jail(sandbox, code), "ECONNREFUSED")
    assert len(told) == before


async def test_datagrams_are_refused_at_once(sandbox: Sandbox) -> None:
    """So that programs that try QUIC go on with TCP, and nothing leaves by UDP."""
    code = TALK + (
        "for port in (443, 123, 853, 5353):\n"
        "    attempt('name %d' % port, ask, V4, ('web.test', port))\n"
        "attempt('address', ask, V4, ('192.0.2.1', 443))\n"
        "attempt('resolver', ask, V4, ('192.0.2.53', 53))\n"
        "attempt('six', ask, V6, ('2001:db8::1', 443))\n"
    )
    outcome = await from_jail(sandbox, code)
    refused(outcome, "ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL")
    assert outcome["name 443"] == "ECONNREFUSED"


async def test_names_carry_nothing_out(
    sandbox: Sandbox, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of long names, which is how DNS tunnels talk: the host hears of none of them."""
    looked_up: list[object] = []

    def record(*arguments: object, **_options: object) -> list[object]:
        looked_up.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "not in this test")

    monkeypatch.setattr(socket, "getaddrinfo", record)
    before = len(told)
    code = (
        "import os, socket\n"
        "parts = [[os.urandom(30).hex() for _ in range(4)] for _ in range(300)]\n"
        "names = ['.'.join(each)[:245] + '.test' for each in parts]\n"
        "print(len({socket.gethostbyname(name) for name in names}))\n"
        "for kind in (16, 10, 65, 28, 12, 255):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n"
        "        s.settimeout(10)\n"
        "        question = b''.join(bytes([len(p)]) + p.encode() for p in names[0].split('.'))\n"
        "        head = b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0'\n"
        "        s.sendto(head + question + bytes((0, 0, kind, 0, 1)), ('198.18.0.1', 53))\n"
        "        answer = s.recv(2000)\n"
        "        print(answer[3] & 15, int.from_bytes(answer[6:8], 'big'))\n"
    )
    lines = succeeded(await python(sandbox, code, timeout=110)).splitlines()
    assert lines[0] == "300"
    assert lines[1:] == ["0 0"] * 6
    assert looked_up == []
    assert len(told) == before  # no connection was even asked for


async def test_the_hosts_loopback_is_not_the_agents(sandbox: Sandbox) -> None:
    """A server of this machine, dialled on the agent's own loopback and by names for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        code = f"PORT = {server.getsockname()[1]}\n{TALK}" + (
            "for host in ('127.0.0.1', 'localhost', 'app.localhost', '0.0.0.0', '127.1'):\n"
            "    for port in (PORT, 80, 443):\n"
            "        attempt('%s %d' % (host, port), talk, V4, (host, port))\n"
        )
        refused(await from_jail(sandbox, code), "ECONNREFUSED", "ECONNRESET")
        with pytest.raises(BlockingIOError):
            server.accept()
        with socket.create_connection(server.getsockname()):
            server.settimeout(5)
            server.accept()[0].close()


async def test_the_network_is_in_the_agents_namespace_only(sandbox: Sandbox) -> None:
    """Outside it, where the supervisor is, there is neither a name server nor a listener."""
    code = TALK + (
        "for port in (53, 80, 443):\n"
        "    attempt('loopback %d' % port, talk, V4, ('127.0.0.1', port))\n"
        "    attempt('range %d' % port, talk, V4, ('198.18.0.1', port))\n"
    )
    refused(await from_guest_root(sandbox, code), "ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL")
    assert await reachable(sandbox)


SQUAT = """
def take(port, address="0.0.0.0", kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((address, port))
    if kind == socket.SOCK_STREAM:
        s.listen()
    held.append(s)
held = []
"""


async def test_no_program_takes_the_place_of_the_listeners(sandbox: Sandbox) -> None:
    """Nor shares their ports; other ports are the agent's own, as without a network."""
    code = SQUAT + (
        "attempt('80', take, 80)\n"
        "attempt('443', take, 443)\n"
        "attempt('names', take, 53, '198.18.0.1', socket.SOCK_DGRAM)\n"
        "attempt('names over TCP', take, 53, '198.18.0.1')\n"
        "attempt('another', take, 8080)\n"
    )
    outcome = await from_jail(sandbox, code)
    assert outcome.pop("another") == "done"
    refused(outcome, "EADDRINUSE", "EACCES")


FLOOD = """
import resource, select, socket, sys, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 6000), hard))
address = (socket.gethostbyname("web.test"), 80)
held = []
def open_one(kind=socket.SOCK_STREAM, to=address):
    s = socket.socket(socket.AF_INET, kind)
    s.setblocking(False)
    try:
        s.connect(to)
    except OSError as error:
        if error.errno != 115:
            raise
    held.append(s)
count = 0
try:
    for _ in range(3000):
        open_one()
        count += 1
except OSError:
    pass
for s in held[::2]:
    try:
        s.send(b"GET /large HTTP/1.1\\r\\nHost: web.test\\r\\n\\r\\n" * 3)  # and never read
    except OSError:
        pass
for s in held[1::4]:
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass
for _ in range(100):
    open_one(to=("198.18.0.1", 53))
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
head, tail = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0", b"\\4test\\0\\0\\1\\0\\1"
for number in range(3000):
    asker.sendto(head + b"\\6n%05d" % number + tail, ("198.18.0.1", 53))
print("flooded", count, flush=True)
sys.stdin.read()
"""


async def test_an_agent_that_takes_all_it_can_exhausts_only_itself(
    sandbox: Sandbox, internet: Sites
) -> None:
    """Connections, half of them unread, half-closed ones, questions: the guest's first process
    holds a bounded part of it and goes on serving, and all of it is given back."""
    flood = await sandbox.exec(("python3", "-c", FLOOD))
    async with asyncio.timeout(100):
        said = await flood.stdout.read()
        assert said.startswith(b"flooded")
        assert int(said.split()[1]) >= 1000
        held = succeeded(
            await guest_root(sandbox, "import os; print(len(os.listdir('/proc/1/fd')))")
        )
        assert int(held) < 1000
        assert sandbox.open_streams < 1000
        await sandbox.sync()
        assert succeeded(await shell(sandbox, "echo well")) == "well\n"
        await flood.signal(9, group=True)
        await flood.wait()
    for _round in range(100):
        if sandbox.open_streams <= 3:
            break
        await sandbox.sync()
    assert await reachable(sandbox)


async def test_a_published_port_leads_to_the_agent_only(sandbox: Sandbox) -> None:
    """Not to what listens in the guest outside its jail."""
    server = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 7777))\n"
        "print('ready', flush=True)\n"
        "while True: s.accept()[0].sendall(b'the supervisor')\n"
    )
    outside = await sandbox.exec(
        ("/usr/bin/python3", "-I", "-S", "-c", server), agent=0, workdir="/"
    )
    assert await outside.stdout.read() == b"ready\n"
    port = await sandbox.publish(Publish(address="127.0.0.1", port=0, guest_port=7777))
    try:
        reader, writer = await asyncio.open_connection(port.address, port.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        inside = await sandbox.exec(
            ("python3", "-c", server.replace("the supervisor", "the agent"))
        )
        assert await inside.stdout.read() == b"ready\n"
        reader, writer = await asyncio.open_connection(port.address, port.port)
        assert await reader.readexactly(9) == b"the agent"
        writer.close()
        await inside.signal(9, group=True)
    finally:
        await sandbox.unpublish(port.port)
