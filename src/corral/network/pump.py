"""Bytes between the guest and a server, both ways, until both have ended."""

from __future__ import annotations

import asyncio
import socket
import time

from .client import Client
from .dial import said
from .limits import Usage
from .outcome import Failed
from .stream import Stream

READ_SIZE = 1 << 16  # bytes; nothing more than this is held, in each direction


async def pump(client: Client, stream: Stream, sock: socket.socket, usage: Usage) -> None:
    """Move bytes until both sides have ended, or one cannot go on.

    Raises Failed, Refused, and what the stream raises when the guest gives it up.
    """
    life = _Life(usage.limits.idle)
    upward = asyncio.create_task(_to_server(client, sock, life))
    tasks = {upward, asyncio.create_task(_to_client(client, stream, sock, life))}
    watch = asyncio.create_task(life.watch())
    try:
        pending = tasks
        while pending:
            done, rest = await asyncio.wait({*pending, watch}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending = rest - {watch}
        if upward.result():
            await client.drain()  # it has an answer to read before it is cut off
            raise Failed(upward.result())
    finally:
        for task in (*tasks, watch):
            task.cancel()
        await asyncio.wait({*tasks, watch})
        for task in (*tasks, watch):
            if not task.cancelled():
                task.exception()  # the first one is what is told


async def _to_server(client: Client, sock: socket.socket, life: _Life) -> str:
    """Why the server takes no more, or "" when the client has said all. What such a server has said
    before, an error perhaps, is still to be read.
    """
    loop = asyncio.get_running_loop()
    try:
        while data := await client.next():
            life.touch()
            await loop.sock_sendall(sock, data)
            life.touch()
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        return f"the other side: {said(error)}"
    return ""


async def _to_client(client: Client, stream: Stream, sock: socket.socket, life: _Life) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(sock, READ_SIZE)
        except OSError as error:
            raise Failed(f"the other side: {said(error)}") from error
        if not data:
            break
        life.touch()
        client.server_said(data)
        await client.send(data)
        life.touch()
    await stream.end()


class _Life:
    """When there was a byte last. idle: seconds without one after which it is over."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._last = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_later(idle, self._look)

    def touch(self) -> None:
        """There was one."""
        self._last = time.monotonic()

    def _look(self) -> None:
        left = self._last + self._idle - time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif not self._over.done():
            self._over.set_result(None)

    async def watch(self) -> None:
        """Raises Failed when there was none for too long."""
        try:
            await self._over
        finally:
            self._timer.cancel()
        raise Failed("no byte for too long")
