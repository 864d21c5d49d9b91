"""`python -m corral.verify.islander`: plays cases of `island`, in a network namespace of its own.

A server of ours answers whatever is dialled there. Only OWN and loopback are the namespace's own in
IPv4: the way to all others leads to lo as it would to a gateway, and what comes out of lo is taken
for the server, which may answer from any address (IP_TRANSPARENT). In IPv6, where the kernel has no
such way, every address is the namespace's own (AnyIP).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from ipaddress import ip_address

import msgspec

from ..errors import CorralError, StreamResetError
from ..events import Connection, Event
from ..network import Engine
from ..policy.names import IPAddress
from .island import OWN, PORTS, Case, Said, Step

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # linux/sched.h
_SOURCE = "10.255.255.1"  # what public stand-ins are reached from
_UNICAST, _LOCAL = 1, 2  # linux/rtnetlink.h
_IP_TRANSPARENT = 19  # linux/in.h
_SECONDS = 4.0  # for one connection
_MARK = b"the stand-in"
_HELD = 0.6  # seconds that connections stay, where they are to be counted


def isolate() -> None:
    """Enter a network namespace that leads nowhere. Raises OSError."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET) == 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    elif libc.unshare(_NEW_NET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    with socket.socket() as control:  # ifreq of netdevice(7): the flags of lo
        up = struct.pack("16sh", b"lo", 1 | 64)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, up.ljust(40, b"\0"))  # SIOCSIFFLAGS
    for network in (f"{_SOURCE}/32", f"{OWN}/32"):
        _add_route(network, _LOCAL)
    _add_route("0.0.0.0/0", _UNICAST, _SOURCE)
    with contextlib.suppress(OSError):  # this kernel has no IPv6
        _add_route("::/0", _LOCAL)


def _add_route(network: str, kind: int, source: str | None = None) -> None:
    """A route to lo (rtnetlink(7)), perhaps with a preferred source address."""
    prefix, _, length = network.partition("/")
    family = _family(prefix)

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value

    # rtmsg: table local or main, by the administrator, scope of the host or the link; no flags
    table, scope = (255, 254) if kind == _LOCAL else (254, 253)
    route = struct.pack("=BBBBBBBBI", family, int(length), 0, 0, table, 4, scope, kind, 0)
    route += attribute(4, socket.if_nametoindex("lo").to_bytes(4, sys.byteorder))  # RTA_OIF
    if length != "0":
        route += attribute(1, socket.inet_pton(family, prefix))  # RTA_DST
    if source is not None:
        route += attribute(7, socket.inet_pton(family, source))  # RTA_PREFSRC
    flags = 1 | 4 | 0x400  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(route), 24, flags, 1, 0) + route)
        answer = netlink.recv(4096)
    number = int.from_bytes(answer[16:20], sys.byteorder, signed=True)
    if number:
        raise OSError(-number, os.strerror(-number), network)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class StandIns:
    """Answers for every address. reached: which were connected to; sent: what they got."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.sent = b""

    async def listen(self, stack: contextlib.AsyncExitStack) -> None:
        """Take connections on all addresses and PORTS."""
        for host in ("0.0.0.0", "::"):  # noqa: S104 - of this namespace, which leads nowhere
            for port in PORTS:
                try:
                    sock = socket.create_server((host, port), family=_family(host), backlog=100)
                except OSError:
                    if host == "::":
                        continue  # this kernel has no IPv6
                    raise
                if host != "::":
                    sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
                server = await asyncio.start_server(self._serve, sock=sock)
                stack.push_async_callback(_closed, server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.append(writer.get_extra_info("sockname")[0])
        body = f"HTTP/1.1 200 OK\r\ncontent-length: {len(_MARK)}\r\n\r\n".encode() + _MARK
        with contextlib.suppress(OSError):
            self.sent += await reader.read(1 << 16)
            writer.write(body)
            await writer.drain()
            while piece := await reader.read(1 << 16):
                self.sent += piece
        writer.close()


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


class Agent:
    """The guest's end of one connection, as the engine has it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.received = bytearray()
        self.over = asyncio.Event()
        self.was_reset = False

    async def read(self, limit: int = 1 << 16) -> bytes:
        """What the agent sends at once; then it waits until the connection is over."""
        if not self._data:
            await self.over.wait()
            if self.was_reset:
                raise StreamResetError("given up")
            return b""
        piece, self._data = self._data[:limit], self._data[limit:]
        return piece

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """What the agent gets. It goes when the stand-in has answered."""
        self.received += data
        if _MARK in self.received:
            self.over.set()

    async def end(self) -> None:
        """The other side has said all."""
        self.over.set()

    def reset(self, reason: str = "") -> None:
        """The other side has given it up."""
        self.was_reset = True
        self.over.set()


class _Game:
    """One case."""

    def __init__(self, case: Case, stand_ins: StandIns) -> None:
        self._case = case
        self._stand_ins = stand_ins
        self._looked_up: list[str] = []
        self._events: list[Connection] = []

    async def play(self) -> list[Said]:
        case = self._case
        async with Engine(
            case.network,
            agents=(1, 2),
            gateways=case.gateways,
            report=self._heard,
            resolve=self._resolve,
        ) as engine:
            if case.together:
                return await asyncio.gather(*(self._step(engine, step) for step in case.steps))
            return [await self._step(engine, step) for step in case.steps]

    def _heard(self, event: Event) -> None:
        if isinstance(event, Connection):
            self._events.append(event)

    async def _resolve(self, name: str) -> tuple[IPAddress, ...]:
        answers = self._case.answers.get(name, ((),))
        place = min(self._looked_up.count(name), len(answers) - 1)
        self._looked_up.append(name)
        await asyncio.sleep(0)
        return tuple(ip_address(text) for text in answers[place])

    async def _step(self, engine: Engine, step: Step) -> Said:
        stand_ins = self._stand_ins
        if not self._case.together:
            stand_ins.reached.clear()
            stand_ins.sent = b""
        events, lookups = len(self._events), len(self._looked_up)
        agent = Agent(step.data)
        problem = ""
        try:
            engine.connect({"agent": step.agent, "name": step.name, "port": step.port}, agent)
        except (ValueError, CorralError) as error:
            problem = str(error)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await agent.over.wait()
            if self._case.hold:
                await asyncio.sleep(_HELD)
            agent.reset()
            if not self._case.together:
                await _quiet(engine)
        heard = self._events[events:]
        first = heard[0] if heard else None
        return Said(
            verdict=first.verdict if first else "",
            reason=(next((e.reason for e in heard if e.reason), "") if heard else problem),
            rule=first.rule if first else "",
            address=first.address if first else "",
            lookups=tuple(self._looked_up[lookups:]),
            reached=tuple(stand_ins.reached),
            received=bytes(agent.received),
            sent=stand_ins.sent,
        )


async def _quiet(engine: Engine) -> None:
    """Until its connections have ended, so that what is told next is told of the next."""
    end = asyncio.get_running_loop().time() + _SECONDS
    while engine.open_connections and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.002)  # the engine does not tell


async def main() -> None:
    """Play the cases that come, one JSON line each, until there are no more."""
    loop = asyncio.get_running_loop()
    stand_ins = StandIns()
    async with contextlib.AsyncExitStack() as stack:
        await stand_ins.listen(stack)
        while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
            case = msgspec.json.decode(line, type=Case)
            answer = await _Game(case, stand_ins).play()
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    isolate()  # before there is a second thread
    asyncio.run(main())
