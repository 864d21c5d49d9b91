"""The keeper's socket: where it is, and who is at its other end."""

from __future__ import annotations

import socket
import struct

SOCKET = "keeper.sock"  # in the run folder
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end of a connected Unix socket, as the kernel says."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid
