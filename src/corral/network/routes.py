"""What the kernel says of the way to an address (rtnetlink(7)). Nothing is sent."""

from __future__ import annotations

import errno
import os
import socket
import struct

from corral.policy.names import IPAddress

# linux/netlink.h, linux/rtnetlink.h
_REQUEST, _ERROR = 1, 2
_NEWROUTE, _GETROUTE = 24, 26
_DESTINATION = 1
_HEAD, _ROUTE, _ATTRIBUTE = "=IHHII", "=BBBBBBBBI", "=HH"
_HEAD_SIZE, _TYPE_AT = 16, 7  # of the second, the byte that says its type
_HERE = frozenset((2, 3, 4))  # RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST
# What the kernel says for an address to which no way leads, one that is closed, or a kind of
# address that it does not have.
_NO_WAY = frozenset(
    (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EACCES,
        errno.EINVAL,
        errno.EAFNOSUPPORT,
        errno.EOPNOTSUPP,
        errno.EADDRNOTAVAIL,
    )
)


def delivered_here(address: IPAddress) -> bool:
    """Whether this host takes for itself what it sends there: an address of its own, whichever of
    its interface's addresses it is, a broadcast or an anycast address. Raises OSError when that
    cannot be found out.
    """
    if address.is_unspecified:  # connect(2) takes it for loopback
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    bits = len(address.packed) * 8
    wanted = struct.pack(_ROUTE, family, bits, 0, 0, 0, 0, 0, 0, 0)
    wanted += struct.pack(_ATTRIBUTE, 4 + len(address.packed), _DESTINATION) + address.packed
    head = struct.pack(_HEAD, _HEAD_SIZE + len(wanted), _GETROUTE, _REQUEST, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as netlink:
        netlink.send(head + wanted)
        # The answer is there before send(2) returns.
        answer = netlink.recv(65536, socket.MSG_DONTWAIT)
    said = struct.unpack_from(_HEAD, answer)[1]
    if said == _NEWROUTE:
        return answer[_HEAD_SIZE + _TYPE_AT] in _HERE
    number = -struct.unpack_from("=i", answer, _HEAD_SIZE)[0] if said == _ERROR else errno.EBADMSG
    if number in _NO_WAY:
        return False
    raise OSError(number, os.strerror(number))
