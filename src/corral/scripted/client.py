"""One connection of a client: its requests, and the answers to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import h11

from .model import Seen

_READ_BYTES = 1 << 16
MAX_BODY_BYTES = 64 << 20


class Client:
    """A client. It is read ahead, so that its going is seen while it is being answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_READ_BYTES)
        self._reading: asyncio.Task[bytes] | None = None
        self._bodiless = False

    async def request(self) -> Seen | None:
        """The next one; None: there is none. Raises ConnectionError, too where it is no HTTP."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is h11.MUST_CLOSE:
            return None
        head: h11.Request | None = None
        body = bytearray()
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                await self.whole(400, {"connection": "close"}, b"this is no HTTP\n")
                raise ConnectionError(str(error)) from error
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._read())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    raise ConnectionError("a body that is too large")
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self._bodiless = head.method == b"HEAD"
                return _seen(head, bytes(body))
            else:
                return None

    async def answered(self, answer: Coroutine[Any, Any, None]) -> bool:
        """Carry out an answer; False: the client went before its end, and it was cancelled."""
        answering = asyncio.ensure_future(answer)
        try:
            while not answering.done():
                reading = self._ahead()
                await asyncio.wait((answering, reading), return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and not answering.done():
                    if not await self._read_failed_or_ended():
                        continue
                    return False
            try:
                answering.result()
            except OSError:
                return False
            return True
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """An answer in one piece."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self.more(body)
        await self.end()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer."""
        await self._send(h11.Response(status_code=status, headers=list(headers.items())))

    async def more(self, data: bytes) -> None:
        """A piece of its body."""
        if not self._bodiless:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Its end."""
        await self._send(h11.EndOfMessage())

    def abort(self) -> None:
        """Hang up in the middle."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Hang up."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _ahead(self) -> asyncio.Task[bytes]:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._reader.read(_READ_BYTES))
        return self._reading

    async def _read(self) -> bytes:
        reading, self._reading = self._ahead(), None
        return await reading

    async def _read_failed_or_ended(self) -> bool:
        """Whether what was read ahead is the end; if not, it is kept for the next request."""
        try:
            data = await self._read()
        except OSError:
            return True
        self._http.receive_data(data)
        return not data

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()


def _seen(head: h11.Request, data: bytes) -> Seen:
    target = urlsplit(head.target.decode("latin-1"))
    try:
        body = json.loads(data) if data else None
    except ValueError:
        body = data
    return Seen(
        head.method.decode("ascii"),
        unquote(target.path),
        target.query,
        {
            name.decode("ascii"): value.decode(errors="surrogateescape")
            for name, value in head.headers
        },
        body,
    )
