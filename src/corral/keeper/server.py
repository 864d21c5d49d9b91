"""The keeper's private socket: who may connect, and the tasks of all who did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

from ..channel.server import ServedChannel
from ..errors import HostError, SandboxStateError
from . import messages
from .door import SOCKET, peer_uid
from .keeper import Keeper
from .model import Problem
from .peer import Peer

MAX_CLIENTS = 256
_BACKLOG = 64


class Server:
    """Accepts clients of this user, and serves them until `dismiss`."""

    def __init__(self, keeper: Keeper, hello: Callable[[], messages.Hello]) -> None:
        self._keeper = keeper
        self._hello = hello
        self._peers: set[Peer] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    @contextlib.asynccontextmanager
    async def listen(self, folder: Path) -> AsyncIterator[None]:
        """Listen at `folder`/keeper.sock, which is made for this user only. Raises HostError."""
        path = folder / SOCKET
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen(_BACKLOG)
            except OSError as error:
                raise HostError(
                    f"cannot listen at {path}: {error.strerror or error}.",
                    hint="Set XDG_RUNTIME_DIR to a folder of yours with a short name.",
                ) from error
            listener.setblocking(False)
            try:
                self._spawn(self._accept(listener), "accept")
                self._spawn(self._keeper.syncing.run(), "sync")
                yield
            finally:
                path.unlink(missing_ok=True)
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def dismiss(self, problem: Problem) -> None:
        """Tell every client why the sandbox ends, and close."""
        await asyncio.gather(*(peer.dismiss(problem) for peer in list(self._peers)))

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._peers)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _address = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, say: those there are go on
                print(f"cannot accept: {error}", file=sys.stderr)
                await asyncio.sleep(1)  # nothing tells when there are descriptors again
                continue
            if peer_uid(sock) != os.getuid():
                sock.close()
            elif len(self._peers) >= MAX_CLIENTS:
                await self._turn_away(sock)
            else:
                self._spawn(self._serve(sock), "client")

    async def _turn_away(self, sock: socket.socket) -> None:
        """Say why, which a new socket has room for, and close; nothing is heard."""
        error = SandboxStateError(
            f"{MAX_CLIENTS} clients are connected to {self._keeper.name}, and no more can be.",
            hint="Try again when one of them has ended.",
        )
        channel = await ServedChannel.serve(sock, lambda _request: None)
        channel.tell("gone", {"problem": messages.write(Problem.of(error))})
        await channel.aclose()

    async def _serve(self, sock: socket.socket) -> None:
        peer = Peer(self._keeper, self._hello(), self._spawn)
        self._peers.add(peer)
        try:
            await peer.serve(sock)
        finally:
            self._peers.discard(peer)

    def _spawn(self, work: Coroutine[object, object, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours in what one client wanted: into the keeper's log, the others go on.
            traceback.print_exception(error, file=sys.stderr)
