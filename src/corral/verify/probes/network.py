"""The network as a sandbox without a policy has it: none; and what no policy opens."""

from __future__ import annotations

import socket

from ..judging import breach_if, refused, tried_if
from ..registry import Registry
from ..scenes import Inside

NETWORK = Registry("network")
probe = NETWORK.probe

# Nobody listens on the guest's own loopback; there is no way to anywhere else.
UNREACHABLE = ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EACCES", "EINVAL")
# Where a policy makes local routes, what it denies is answered, and closed, by its name.
CLOSED = (*UNREACHABLE, "ECONNRESET", "EPIPE", "closed")

CONNECT = """
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(5)
        s.connect(address)
        s.send(b"x")
        if not s.recv(1):
            raise OSError("closed")
V4, V6 = socket.AF_INET, socket.AF_INET6
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
"""


async def from_both(scene: Inside, code: str, at_least: int) -> str:
    """The attack from the jail and by the guest's root."""
    seen = []
    for run in (scene.jail, scene.root):
        outcome = await run(CONNECT + code)
        seen.append(refused(outcome, *CLOSED, at_least=at_least))
    return f"jail: {seen[0]}; root: {seen[1]}"


@probe(
    "host-loopback",
    "no-network",
    "A service on the host's loopback is reached, by the addresses that emulators give the host.",
    scene="any",
)
async def host_loopback(scene: Inside) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()):
            server.settimeout(5)
            server.accept()[0].close()  # the control: it can be reached on the host
        server.settimeout(0)
        seen = await from_both(
            scene,
            f"""
for host in ("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.2.2", "10.0.2.3"):
    attempt(host, connect, V4, STREAM, (host, {port}))
for host in ("::1", "::ffff:127.0.0.1", "::"):
    attempt(host, connect, V6, STREAM, (host, {port}))
""",
            8,
        )
        try:
            server.accept()
        except BlockingIOError:
            return seen
    breach_if(True, "the service was reached")
    return seen


@probe(
    "addresses-not-allowed",
    "no-network",
    "Reserved addresses are connected to by TCP and UDP, IPv4 and IPv6.",
    scene="any",
)
async def addresses(scene: Inside) -> str:
    return await from_both(
        scene,
        """
for host in ("192.0.2.1", "198.51.100.1", "255.255.255.255"):
    for port in (80, 443):
        attempt(f"tcp {host}:{port}", connect, V4, STREAM, (host, port))
    attempt(f"udp {host}", connect, V4, DATAGRAM, (host, 4433))
for host in ("2001:db8::1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "fe80::1", "ff02::1"):
    attempt(f"tcp {host}", connect, V6, STREAM, (host, 443))
    attempt(f"udp {host}", connect, V6, DATAGRAM, (host, 4433))
""",
        19,
    )


@probe(
    "raw-sockets",
    "no-network",
    "Packets are made by raw and packet sockets, as root of the jail and of the guest.",
    scene="any",
)
async def raw(scene: Inside) -> str:
    code = """
def send(family, kind, protocol, address):
    with socket.socket(family, kind, protocol) as s:
        s.sendto(b"x" * 64, address)
attempt("icmp", send, socket.AF_INET, socket.SOCK_RAW, 1, ("192.0.2.1", 0))
attempt("ping", send, socket.AF_INET, socket.SOCK_DGRAM, 1, ("192.0.2.1", 0))
for name in ("eth0", "enp0s1", "vsock0", "tap0"):
    attempt("packet " + name, send, socket.AF_PACKET, socket.SOCK_RAW, 3, (name, 0x800))
attempt("sctp", send, socket.AF_INET, socket.SOCK_SEQPACKET, 132, ("192.0.2.1", 9))
"""
    refusals = ("ENETUNREACH", "EPERM", "EACCES", "ENODEV", "ENXIO", "EPROTONOSUPPORT")
    seen = []
    for run in (scene.jail, scene.root):
        outcome = await run(code)
        seen.append(refused(outcome, *refusals, "EAFNOSUPPORT", "ESOCKTNOSUPPORT", at_least=7))
    return f"jail: {seen[0]}; root: {seen[1]}"


@probe(
    "abstract-sockets-of-the-host",
    "no-network",
    "An abstract socket of the host, which lives in its network namespace, is connected to.",
    scene="any",
    cites=("CVE-2020-15257",),
)
async def abstract(scene: Inside) -> str:
    name = f"\0corral-verify-{id(scene)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)  # the control
        server.accept()[0].close()
        server.settimeout(0)
        seen = await from_both(
            scene, f"attempt('abstract', connect, socket.AF_UNIX, STREAM, {name!r})", 1
        )
        try:
            server.accept()
        except BlockingIOError:
            return seen
    tried_if(False, "somebody else has connected")
    return seen
