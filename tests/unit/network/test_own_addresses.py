"""The host's own addresses are refused, whatever form a name server gives them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from ipaddress import ip_address

import msgspec
import pytest

from corral.network.dial import is_own
from corral.network.outcome import Failed
from corral.policy import Address, Network
from corral.policy.rules import parse_rules
from tests.support import worlds
from tests.support.egress import ask, running

OWN_NETWORK = """
import asyncio, fcntl, socket, struct, sys
from ipaddress import ip_address
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    own = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("9.9.9.9"))
    fcntl.ioctl(s, 0x8916, own)  # SIOCSIFADDR
from tests.support.egress import ask, policy, running
async def main(text):
    async def resolve(name):
        return (ip_address(text),)
    async with running(policy("evil.test:7000"), resolve=resolve) as engine:
        print(await ask(engine, "evil.test", 7000).refused())
for text in sys.argv[1:]:
    asyncio.run(main(text))
"""


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0"]
)
def test_the_hosts_own_address_is_known_in_every_form(address: str) -> None:
    """A name server can answer with a mapped one; connect(2) takes it for what it stands for."""
    assert is_own(ip_address(address))


async def test_the_hosts_public_address_is_refused_in_every_form() -> None:
    """In a network of the test's own, whose loopback has an address that counts as public."""
    forms = ["9.9.9.9", "::ffff:9.9.9.9", "64:ff9b::909:909"]
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", OWN_NETWORK]
    done = await asyncio.create_subprocess_exec(*command, *forms, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(done.communicate(), 60)
    assert said.decode().splitlines() == ["host's own address"] * len(forms)


def test_each_address_of_the_host_is_known_and_no_other() -> None:
    """Also the second one of a subnet: what is sent there comes from the first."""
    own, others, translated = msgspec.convert(
        worlds.run("tests.security.egress_world:own"), list[list[str]]
    )
    assert own == [
        *(worlds.OWN, worlds.OWN6, *worlds.SUBNET, *worlds.SUBNET6),
        "51.15.1.255",  # the subnet's broadcast address
    ]
    assert not others
    assert translated == ["::ffff:51.15.1.6", "64:ff9b::330f:106"]


def test_without_a_free_descriptor_no_address_counts_as_anothers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guest that has this process open too many connections does not get to its own address."""

    def full(*_arguments: object, **_options: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", full)
        with pytest.raises(Failed, match="too many open files"):
            is_own(ip_address("127.0.0.1"))
    assert is_own(ip_address("127.0.0.1"))


async def test_what_is_denied_is_denied_by_the_port_that_is_dialled() -> None:
    """Though the policy leads another port there."""
    network = Network(
        mode="allow",
        allow=parse_rules("db.test:7000"),
        deny=parse_rules("127.0.0.1:9"),
        addresses=(Address(name="db.test", port=7000, address="127.0.0.1", to_port=9),),
    )
    async with running(network) as engine:
        assert await ask(engine, "db.test", 7000).refused() == "denied by a rule"
