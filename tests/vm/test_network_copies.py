"""A copy of a sandbox has its own connections; the original keeps those that were open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from corral.sandbox import Sandbox
from tests.support.copies import Copy, copies_of
from tests.support.sandboxes import shell, succeeded
from tests.support.sites import Sites, sites

# Holds a connection, knows an address, and serves on a port. Asked on that port, it says what has
# become of the connection, and whether the address leads to the server still.
PROGRAM = """
import socket, urllib.request
address = socket.gethostbyname("web.test")
held = socket.create_connection(("echo.test", 7000))
def say():
    try:
        held.sendall(b"\\0hello")
        return held.recv(100)[1:].decode() or "ended"
    except ConnectionError:
        return "reset"
def fetch():
    request = urllib.request.Request("http://" + address, headers={"Host": "web.test"})
    return urllib.request.urlopen(request, timeout=30).read().decode().strip()
first = say()
server = socket.create_server(("127.0.0.1", 8000))
print("ready", first, flush=True)
while True:
    client = server.accept()[0]
    client.sendall(f"{say()} {fetch()}".encode())
    client.close()
"""


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("internet")) as serving:
        yield serving


@pytest.fixture(scope="module")
async def both(
    internet: Sites, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[Copy]]:
    """The source and a copy, with the program in both."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    where = f"echo.test:7000=127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def begin(source: Sandbox) -> None:
        execution = await source.exec(("python3", "-c", PROGRAM))
        assert await execution.stdout.read() == b"ready hello\n"

    overrides: dict[str, object] = {
        "network.allow": ["web.test", "echo.test:7000"],
        "network.hosts": [*internet.hosts, where],
        "network.publish": ["0:8000"],
    }
    async with (
        server,
        copies_of(tmp_path_factory.mktemp("copies"), 1, begin, overrides) as found,
    ):
        yield found


async def said(copy: Copy) -> str:
    """What the program in it says, asked on its published port."""
    (port,) = copy.sandbox.ports.listed()
    reader, writer = await asyncio.open_connection(port.address, port.port)
    try:
        return (await asyncio.wait_for(reader.read(), 60)).decode()
    finally:
        writer.close()


async def test_an_open_connection_is_the_originals(both: list[Copy]) -> None:
    source, copy = both
    assert await said(copy) == "reset hello"
    assert await said(source) == "hello hello"


async def test_a_copy_has_ports_of_its_own(both: list[Copy]) -> None:
    ports = {each.sandbox.ports.listed()[0].port for each in both}
    assert len(ports) == 2


async def test_names_that_are_new_lead_there_in_both(both: list[Copy]) -> None:
    for each in both:
        found = await shell(each.sandbox, "curl -sS http://web.test/; curl -sS http://a.test/")
        assert succeeded(found).startswith("hello\n")
        assert "not on the list" in found.stdout
