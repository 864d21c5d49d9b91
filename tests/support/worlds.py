"""A small internet in network namespaces of a test's own: public, private and metadata addresses
that are real servers, and a host with a public address. Nothing of it leaves the machine.

`run("module:function")` calls a coroutine function in such a host, in a process of its own, and
returns what it returns, which has to be JSON. In the world every address of OUTSIDE is a server on
port 7000, 80 and 443 that says its address when it is connected to, and then echoes.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

PUBLIC, PUBLIC6 = "8.8.8.8", "2606:4700:4700::1111"
PRIVATE, LINK_LOCAL, METADATA = "10.1.2.3", "169.254.7.7", "169.254.169.254"
PRIVATE6, METADATA6, NAT64 = "fd00::7", "fd00:ec2::254", "64:ff9b::a01:203"
OUTSIDE = (PUBLIC, PUBLIC6, PRIVATE, LINK_LOCAL, METADATA, PRIVATE6, METADATA6, NAT64)
OWN, OWN6 = "8.8.4.4", "2606:4700:4700::64"  # public addresses of the host itself
# And two of one subnet each: what the host sends to the second comes from the first.
SUBNET, SUBNET6 = ("51.15.1.5", "51.15.1.6"), ("2600:1::5", "2600:1::6")
PORTS = (7000, 80, 443)

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # clone(2)
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_REQUEST, _CREATE = 1 | 4, 0x400 | 0x200  # with an acknowledgement; it must not be there yet
_UP, _NODAD = 1, 2


def run(scenario: str) -> object:
    """Call "module:function" in a world of its own. Raises CalledProcessError."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.support.worlds", scenario],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result: object = json.loads(finished.stdout)
    return result


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(kind: int, body: bytes, flags: int = _CREATE) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0)
        netlink.send(head + body)
        answer = netlink.recv(65536)
        number = struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(-number, f"{os.strerror(-number)}: netlink {kind}")


def _pair(name: str, peer: str, pid: int) -> None:
    """Two network devices joined by a wire, the other one in the namespace of process pid."""
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    inside = link + _attribute(3, peer.encode() + b"\0") + _attribute(19, struct.pack("=I", pid))
    kind = _attribute(1, b"veth") + _attribute(2, _attribute(1, inside))
    _ask(_NEWLINK, link + _attribute(3, name.encode() + b"\0") + _attribute(18, kind))


def _up(name: str) -> None:
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), _UP, _UP)
    _ask(_NEWLINK, body, 0)


def _family(address: str) -> tuple[int, int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return family, len(packed) * 8, packed


def _address(name: str, address: str, bits: int = 0) -> None:
    family, all_bits, packed = _family(address)
    index = socket.if_nametoindex(name)
    flags = _NODAD if family == socket.AF_INET6 else 0
    body = struct.pack("=BBBBI", family, bits or all_bits, flags, 0, index)
    _ask(_NEWADDR, body + _attribute(2, packed) + _attribute(1, packed))


def _route(name: str, target: str | None, family: int = 0) -> None:
    """To one address, or to all, on the wire."""
    bits, attributes = 0, _attribute(4, struct.pack("=I", socket.if_nametoindex(name)))
    if target is not None:
        family, bits, packed = _family(target)
        attributes += _attribute(1, packed)
    scope = 253 if family == socket.AF_INET else 0
    _ask(_NEWROUTE, struct.pack("=BBBBBBBBI", family, bits, 0, 0, 254, 4, scope, 1, 0) + attributes)


def _outside(ready: int, told: int, go: int) -> None:
    """The process that is everybody else."""
    _unshare(_NEWNET)
    os.write(ready, b"x")
    os.read(go, 1)
    for device in ("lo", "outside"):
        _up(device)
    for address in OUTSIDE:
        _address("outside", address)
    for address in (OWN, OWN6):
        _route("outside", address)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local = writer.get_extra_info("sockname")
        address = local[0].removeprefix("::ffff:")
        os.write(told, f"{address} {local[1]}\n".encode())
        try:
            writer.write(f"{address}\n".encode())
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def main() -> None:
        for port in PORTS:
            sock = socket.socket(socket.AF_INET6)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
            await asyncio.start_server(serve, sock=sock)
        os.write(ready, b"x")
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


class World:
    """What a scenario gets."""

    def __init__(self, told: int) -> None:
        self._told = told

    def connected(self) -> list[str]:
        """ "ADDRESS PORT" of each connection that reached a server, since the last call."""
        os.set_blocking(self._told, False)
        try:
            return os.read(self._told, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []


def _enter() -> World:
    uid, gid = os.getuid(), os.getgid()
    _unshare(_NEWUSER | _NEWNET)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {uid} 1")
    _write("/proc/self/gid_map", f"0 {gid} 1")
    (ready, tell_ready), (told, tell), (go, start) = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
        _outside(tell_ready, tell, go)
        os._exit(0)
    os.read(ready, 1)
    _pair("wire", "outside", pid)
    for device in ("lo", "wire"):
        _up(device)
    for address in (OWN, OWN6):
        _address("wire", address)
    for address in SUBNET:
        _address("wire", address, 24)
    for address in SUBNET6:
        _address("wire", address, 64)
    os.write(start, b"x")
    os.read(ready, 1)
    for family in (socket.AF_INET, socket.AF_INET6):
        _route("wire", None, family)
    return World(told)


def main(scenario: str) -> None:
    """Become a host in a world, and print what the scenario returns."""
    module, _, name = scenario.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    world = _enter()
    print(json.dumps(asyncio.run(function(world))))  # type: ignore[arg-type]  # a coroutine function


if __name__ == "__main__":
    main(sys.argv[1])
