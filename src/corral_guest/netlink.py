"""Routes that make addresses local (AnyIP), so that one listener gets what is sent to all of them.

Messages as in rtnetlink(7); numbers from linux/netlink.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
from struct import Struct

_HEADER = Struct("=IHHII")  # struct nlmsghdr
_ROUTE = Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = Struct("=HH")  # struct rtattr
_NEW_ROUTE, _ERROR = 24, 2
_REQUEST, _ACKNOWLEDGE, _CREATE = 1, 4, 0x400
_TABLE_LOCAL, _BY_ADMINISTRATOR, _SCOPE_HOST, _LOCAL = 255, 4, 254, 2
_DESTINATION, _DEVICE = 1, 4
_LOOPBACK = 1  # the index of lo in every network namespace (LOOPBACK_IFINDEX in net/flow.h)


def make_local(networks: list[str]) -> None:
    """Make these networks ("198.18.0.0/15", "::/0") local, in the network namespace we are in.

    Those of IPv6 are left out where the kernel has none. Raises OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        for network in networks:
            netlink.sendto(_request(network), (0, 0))
            answer = netlink.recv(4096)
            _size, kind, _flags, _sequence, _port = _HEADER.unpack_from(answer)
            number = int.from_bytes(answer[16:20], "little", signed=True) if kind == _ERROR else 0
            if number and not (":" in network and not _has_ipv6()):
                raise OSError(-number, os.strerror(-number), network)


def _has_ipv6() -> bool:
    return os.path.exists("/proc/sys/net/ipv6")


def _request(network: str) -> bytes:
    prefix, _, length = network.partition("/")
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    route = _ROUTE.pack(
        family, int(length), 0, 0, _TABLE_LOCAL, _BY_ADMINISTRATOR, _SCOPE_HOST, _LOCAL, 0
    )
    attributes = _attribute(_DEVICE, _LOOPBACK.to_bytes(4, "little"))
    if length != "0":
        attributes += _attribute(_DESTINATION, socket.inet_pton(family, prefix))
    size = _HEADER.size + len(route) + len(attributes)
    flags = _REQUEST | _ACKNOWLEDGE | _CREATE
    return _HEADER.pack(size, _NEW_ROUTE, flags, 1, 0) + route + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
