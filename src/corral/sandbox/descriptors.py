"""Descriptors that a sandbox's processes get: memory, small contents, sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from ..errors import HostError


def memory(size: int) -> int:
    """A descriptor of the guest's memory. Raises HostError."""
    fd = os.memfd_create("corral-ram", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"this machine does not give {size >> 20} MiB of memory: {error.strerror}.",
            hint="Ask for less (--memory, or machine.memory).",
        ) from error
    return fd


def memfd(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A descriptor to read `content` from, closed with the stack."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def connect(path: Path) -> socket.socket:
    """Connect to a socket that another process makes; it tells nobody when, so this looks."""
    loop = asyncio.get_running_loop()
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            await loop.sock_connect(client, str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            await asyncio.sleep(0.005)
        else:
            client.setblocking(True)
            return client
