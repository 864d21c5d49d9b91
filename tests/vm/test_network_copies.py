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
import http.client, socket
address = socket.gethostbyname("web.test")
held = http.client.HTTPConnection("web.test")
def fetch(connection):
    try:
        connection.request("GET", "/", headers={"Host": "web.test"})
        return connection.getresponse().read().decode().strip()
    except ConnectionError:
        return "reset"
first = fetch(held)
server = socket.create_server(("127.0.0.1", 8000))
print("ready", first, flush=True)
while True:
    client = server.accept()[0]
    client.sendall(f"{fetch(held)} {fetch(http.client.HTTPConnection(address))}".encode())
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

    async def begin(source: Sandbox) -> None:
        execution = await source.exec(("python3", "-c", PROGRAM))
        assert await execution.stdout.read() == b"ready hello\n"

    overrides: dict[str, object] = {
        "network.allow": ["web.test"],
        "network.hosts": internet.hosts,
        "network.publish": ["0:8000"],
    }
    async with copies_of(tmp_path_factory.mktemp("copies"), 1, begin, overrides) as found:
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
