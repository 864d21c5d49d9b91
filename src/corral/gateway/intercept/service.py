"""The interceptor's service: a socket for the engine, and what all connections share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from . import placeholders, requests
from .authority import Authority
from .connection import HEAD_TIMEOUT, Intercepted, options
from .handshake import Handshakes
from .held import Held
from .messages import MAX_PREFACE, Misplaced, Trouble, read_preface
from .replace import Needles

MOST_CONNECTIONS = 512
MOST_TOLD = 32  # different words to the parent; a guest can cause as many as it likes


class Service:
    """Serves until it is closed. tell: gets each different word once."""

    def __init__(
        self,
        held: tuple[Held, ...],
        authority: Authority,
        authorities: str,
        tell: Callable[[Misplaced | Trouble], None],
    ) -> None:
        self.held = held
        self.authority = authority
        self.handshakes = Handshakes(authorities)
        self.options = options()
        self.needles = Needles()
        for each in held:
            fitted = placeholders.fitted(each.placeholder.decode(), len(each.secret))
            self.needles.add(each.secret, fitted.encode())
        self._tell = tell
        self._told: set[object] = set()
        self._open: set[asyncio.Task[None]] = set()

    def tell(self, word: Misplaced | Trouble) -> None:
        """Pass a word on to the host, once; of wrong headers, whose names a guest invents, one."""
        kind: object = word
        if isinstance(word, Misplaced):
            kind = (word.secret, word.agent, word.host, word.where.partition(" ")[0])
        if kind not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(kind)
            self._tell(word)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled; then end every connection."""
        listener.setblocking(False)
        serving = await asyncio.start_unix_server(self._accepted, sock=listener)
        try:
            # Not serve_forever(): from Python 3.12 on that ends when the last connection does.
            await asyncio.get_running_loop().create_future()
        finally:
            serving.close()
            for task in self._open:
                task.cancel()
            if self._open:
                await asyncio.wait(self._open)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= MOST_CONNECTIONS:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError, EOFError):
            pass  # the peer is the engine, which reports; a broken preface ends the connection
        except asyncio.LimitOverrunError:
            pass  # the same: a preface without an end
        except asyncio.CancelledError:
            pass  # by `serve`, which waits for this; asyncio's streams would complain
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_TIMEOUT):
            line = await reader.readuntil(b"\n")
        if len(line) > MAX_PREFACE:
            raise ValueError("the preface is too long")
        preface = read_preface(line)
        if any(requests.belongs(preface.name, preface.port, held.hosts) for held in self.held):
            await Intercepted(reader, writer, preface, self).handle_client()
