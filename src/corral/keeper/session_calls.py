"""What one client of a keeper asks of sessions, and the terminals that it is attached to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..channel import Stream
from ..channel.server import ServedChannel
from ..errors import ChannelError, CorralError, ExecError, SandboxStateError, UsageError
from ..terminals.screen import bounded
from . import messages
from .sessions import Session, Sessions, Spawn, Viewer

_MAX_TYPED = 1 << 16  # bytes of one `session-type`
_TYPING_SECONDS = 10.0  # for the program to read them

Method = Callable[[dict[str, Any]], Coroutine[object, object, Any]]
Refuse = Callable[[int, CorralError], None]


class SessionCalls:
    """For one connection. refuse: answers a request with an error."""

    def __init__(self, sessions: Sessions, spawn: Spawn, refuse: Refuse) -> None:
        self._sessions = sessions
        self._spawn = spawn
        self._refuse = refuse
        self._attached: dict[int, tuple[Session, Viewer]] = {}
        self._taken: set[int] = set()
        self._listening: set[asyncio.Task[None]] = set()
        self.methods: dict[str, Method] = {
            "sessions": self._list,
            "session-open": self._open,
            "session-resize": self._resize,
            "session-type": self._type,
            "session-capture": self._capture,
            "session-end": self._end,
        }

    def close(self) -> None:
        """The client is gone, also if it was still typing what nobody reads."""
        for task in self._listening:
            task.cancel()

    def requested(
        self, channel: ServedChannel, request: int, params: dict[str, Any]
    ) -> Coroutine[object, object, None]:
        """`session-attach`: its stream is open when this returns; the rest is to be spawned."""
        call = messages.read(params, messages.AttachCall)
        if call.attachment in self._taken:
            raise ChannelError("an attachment has a number that is taken.")
        stream = channel.register(call.stream)
        self._taken.add(call.attachment)
        return self._attach(channel, request, call, stream)

    async def _attach(
        self, channel: ServedChannel, request: int, call: messages.AttachCall, stream: Stream
    ) -> None:
        size = bounded(call.rows, call.columns)
        try:
            session = self._sessions.find(call.agent, call.session)
        except CorralError as error:
            stream.reset("there is no such session")
            self._taken.discard(call.attachment)
            self._refuse(request, error)
            return
        viewer = session.attach(stream, size, watches=call.watch)
        self._attached[call.attachment] = (session, viewer)
        channel.answer(request, {})
        work = [asyncio.ensure_future(each) for each in (viewer.show(), viewer.listen())]
        self._listening.add(work[1])
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._listening.discard(work[1])
            for each in work:
                each.cancel()
            session.detach(viewer)
            del self._attached[call.attachment]
            self._taken.discard(call.attachment)
            over = viewer.over
            status = session.status
            if over:
                channel.tell("session-over", {"attachment": call.attachment, "status": status})
            else:
                stream.reset("it is detached")

    async def _list(self, _params: dict[str, Any]) -> dict[str, Any]:
        return messages.write(messages.Sessions(sessions=tuple(self._sessions.listed())))

    async def _open(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.OpenCall)
        if call.agent < 1:
            raise ExecError("a session needs an agent.")
        opened = await self._sessions.open(
            call.agent,
            call.session,
            [messages.unpacked(item) for item in call.argv],
            environment={
                messages.unpacked(name): messages.unpacked(value)
                for name, value in call.environment.items()
            },
            workdir=None if call.workdir is None else messages.unpacked(call.workdir),
            size=bounded(*call.terminal),
            spawn=self._spawn,
        )
        return {"opened": opened}

    async def _resize(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.ResizeSessionCall)
        found = self._attached.get(call.attachment)
        if found is not None:  # else it is over
            session, viewer = found
            session.resized(viewer, bounded(call.rows, call.columns))

    async def _type(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.SessionCall)
        data = call.data.encode("latin-1", "replace")
        if len(data) > _MAX_TYPED:
            raise UsageError(f"no more than {_MAX_TYPED} bytes can be typed at once.")
        session = self._sessions.find(call.agent, call.session)
        try:
            async with asyncio.timeout(_TYPING_SECONDS):
                await session.type(data)
        except TimeoutError:
            raise SandboxStateError(
                f"the program of the session {session.name} does not read what is typed.",
                hint="See what it does: corral attach NAME --capture",
            ) from None

    async def _capture(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.SessionCall)
        session = self._sessions.find(call.agent, call.session)
        return {"text": session.emulator.screen.text(call.history)}

    async def _end(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.SessionCall)
        await self._sessions.find(call.agent, call.session).end()
