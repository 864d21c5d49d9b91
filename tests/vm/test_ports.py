"""Ports of this machine lead to servers in a sandbox, which listen on its loopback only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral import Sandbox as SdkSandbox
from corral.errors import PortError
from corral.policy import Publish
from corral.sandbox import Sandbox
from corral.sandbox.ports import Port
from tests.conftest import Corral
from tests.support.sandboxes import sandbox_on, shell, succeeded

# Says what it serves, on a loopback of the agent's; "6": on that of IPv6.
SERVER = """
import socket, sys, threading
family, address = (socket.AF_INET6, "::1") if "6" in sys.argv else (socket.AF_INET, "127.0.0.1")
server = socket.socket(family)
server.bind((address, int(sys.argv[1])))
server.listen(64)
print("ready", flush=True)
def serve(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    s.sendall(b"%d " % len(data) + data[:100])
    s.close()
while True:
    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"""


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Without a network, with a server on port 8000 and on 8001, there of IPv6."""
    overrides = {"network.publish": ["127.0.0.1:0:8000", "127.0.0.1:0:8001"]}
    async with sandbox_on(tmp_path_factory.mktemp("ports"), overrides) as running:
        for arguments in (("8000",), ("8001", "6")):
            execution = await running.exec(("python3", "-c", SERVER, *arguments))
            assert await execution.stdout.read() == b"ready\n"
        yield running


def port_of(sandbox: Sandbox, guest_port: int) -> Port:
    return next(port for port in sandbox.ports.listed() if port.guest_port == guest_port)


async def said(port: Port, data: bytes) -> bytes:
    """What the server answers to all of data."""
    reader, writer = await asyncio.open_connection(port.address, port.port)
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


@pytest.mark.parametrize("guest_port", [8000, 8001])
async def test_a_client_reaches_the_server(sandbox: Sandbox, guest_port: int) -> None:
    assert await said(port_of(sandbox, guest_port), b"hello") == b"5 hello"


async def test_much_goes_in(sandbox: Sandbox) -> None:
    answer = await said(port_of(sandbox, 8000), bytes(3 << 20))
    assert answer.startswith(b"%d " % (3 << 20))


async def test_many_clients_at_once(sandbox: Sandbox) -> None:
    port = port_of(sandbox, 8000)
    answers = await asyncio.gather(*(said(port, b"n%d" % number) for number in range(40)))
    assert answers == [b"%d n%d" % (len(str(n)) + 1, n) for n in range(40)]


async def test_where_no_server_listens_the_client_sees_a_reset(sandbox: Sandbox) -> None:
    port = await sandbox.publish(Publish(address="127.0.0.1", port=0, guest_port=9))
    with pytest.raises(ConnectionResetError):
        await said(port, b"")
    await sandbox.unpublish(port.port)
    with pytest.raises(ConnectionRefusedError):
        await said(port, b"")


async def test_the_bytes_count(sandbox: Sandbox) -> None:
    before = await sandbox.usage()
    await said(port_of(sandbox, 8000), b"x" * 1000)
    after = await sandbox.usage()
    assert after.received - before.received == 1000
    assert after.sent > before.sent


async def test_it_is_bound_to_this_machine_only(sandbox: Sandbox) -> None:
    """Another address of this machine, as its networks see it, does not lead in."""
    port = port_of(sandbox, 8000)
    with pytest.raises(ConnectionRefusedError):
        await said(Port(address="127.0.0.2", port=port.port, guest_port=8000), b"")


async def test_no_network_comes_with_a_port(sandbox: Sandbox) -> None:
    found = await shell(sandbox, "cat /etc/resolv.conf; ls /sys/class/net 2>&1; true")
    assert "nameserver" not in succeeded(found)


# The command line


def test_ports_of_a_kept_sandbox_come_and_go(corral: Corral, project: Path) -> None:
    name = f"ports-{os.getpid()}"
    up = corral("up", name, "-d", "-p", "0:8000")
    try:
        assert up.returncode == 0, up.stderr
        served = corral(
            *("exec", name, "--", "sh", "-c"),
            "echo page > index.html; python3 -u -m http.server 8000 --bind 127.0.0.1"
            " > /tmp/log 2>&1 & python3 -u -m http.server 8001 --bind 127.0.0.1 > /tmp/log2 2>&1 &"
            " until grep -qs Serving /tmp/log && grep -qs Serving /tmp/log2; do sleep 0.2; done",
        )
        assert served.returncode == 0, served.stderr
        (first,) = json.loads(corral("port", "list", name, "--json").stdout)
        assert (first["address"], first["guest_port"]) == ("127.0.0.1", 8000)
        url = f"http://127.0.0.1:{first['port']}/"
        assert urllib.request.urlopen(url, timeout=30).read() == b"page\n"

        added = corral("port", "add", name, "0:8001").stdout.strip()
        assert urllib.request.urlopen(f"http://{added}/", timeout=30).read() == b"page\n"
        table = corral("port", "list", name).stdout
        assert re.search(rf"^{re.escape(added)} +8001 ", table, re.MULTILINE)
        assert len(json.loads(corral("inspect", name).stdout)["live"]["ports"]) == 2
        network = json.loads(corral("stats", name, "--json").stdout)[0]["usage"]
        assert network["sent"] > 0 and network["received"] > 0

        taken = corral("port", "add", name, f"{added.rpartition(':')[2]}:8000")
        assert taken.returncode == 125
        assert "is in use" in taken.stderr
        assert "Traceback" not in taken.stderr
        number = added.rpartition(":")[2]
        assert corral("port", "remove", name, number).stdout.strip() == added
        again = corral("port", "remove", name, number)
        assert (again.returncode, "not published" in again.stderr) == (125, True)
        assert corral("port", "add", name, "nonsense").returncode == 2
    finally:
        corral("rm", "-f", name)


def test_a_port_in_use_is_found_before_anything_starts(corral: Corral) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = corral("run", "-p", f"{port}:80", "--", "true")
    assert done.returncode == 125
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


# The SDK


def test_a_program_publishes_ports(project: Path) -> None:
    (project / "index.html").write_text("page\n")
    """Also one below 1024, which needs a capability elsewhere."""
    with SdkSandbox(workspace=project, ports=["0:80"], memory="768MiB", cpus=1) as box:
        (port,) = box.ports.list()
        argv = ["python3", "-u", "-m", "http.server", "80", "--bind", "127.0.0.1"]
        with box.spawn(argv) as server:
            next(iter(server.stdout))
            url = f"http://{port.address}:{port.port}/"
            assert urllib.request.urlopen(url, timeout=30).read() == b"page\n"
            with pytest.raises(PortError):
                box.ports.add(f"{port.port}:8000")
            box.ports.remove(port)
            assert box.ports.list() == ()
