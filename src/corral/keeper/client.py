"""A kept sandbox, from another process: as `Sandbox`, over the keeper's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from ..channel import Abandoned, Channel, Execution, Reason, Stream
from ..errors import (
    ChannelError,
    CorralError,
    ExecError,
    GuestError,
    SandboxGoneError,
    SandboxStateError,
    StreamResetError,
)
from ..policy import Publish
from ..sandbox import AgentStatus
from ..sandbox.ports import Port
from . import messages
from .door import SOCKET, peer_uid
from .model import VERSION, Info, Problem
from .store import Record

if TYPE_CHECKING:
    from .task_client import KeptTasks

T = TypeVar("T")
Session = tuple[int, str]  # an agent's number, and the name

_CALL_TIME = 90.0  # seconds: longer than the keeper waits for its guest
_SETTLING = 5.0  # seconds for the reason of an end to come, which is looked for in many logs
_LEAVING = 3.0  # seconds for a keeper that ends to be gone; the kernel closes all it had at once
_LOOK = 0.05  # seconds


class Attachment(msgspec.Struct, frozen=True):
    """A session that is attached, until `stream` is ended. over: its status, once it has ended."""

    stream: Stream
    over: asyncio.Future[int | None]
    resize: Callable[[int, int], Awaitable[None]]


class Kept:
    """A sandbox that a keeper has. Made by `connect`."""

    def __init__(self, record: Record, channel: Channel, why_gone: Reason) -> None:
        self.name = record.name
        self.hello: messages.Hello
        self._record = record
        self._channel = channel
        self._why_gone = why_gone
        self._statuses: dict[int, asyncio.Future[int]] = {}
        self._abandoned = Abandoned(channel)
        self._next = 1
        self._ends: dict[int, asyncio.Future[int | None]] = {}
        channel.handle("exited", self._exited)
        channel.handle("session-over", self._session_over)
        channel.handle("gone", self._gone)

    @property
    def tasks(self) -> KeptTasks:
        """The tasks of its agents."""
        from .task_client import KeptTasks  # most clients have none to give

        return KeptTasks(self._channel, self._call)

    def _exited(self, params: dict[str, object]) -> None:
        number, status = params.get("exec"), params.get("status")
        if type(number) is not int or type(status) is not int:
            raise ChannelError("the keeper reported an end of a command that makes no sense.")
        future = self._statuses.pop(number, None)
        if future is not None and not future.done():  # else nobody waits for it any more
            future.set_result(status)

    def _session_over(self, params: dict[str, object]) -> None:
        number, status = params.get("attachment"), params.get("status")
        if type(number) is not int or not (status is None or type(status) is int):
            raise ChannelError("the keeper reported an end of a session that makes no sense.")
        future = self._ends.pop(number, None)
        if future is not None and not future.done():
            future.set_result(status)

    def _gone(self, params: dict[str, object]) -> None:
        found = params.get("problem")
        problem = messages.read(found if isinstance(found, dict) else {}, Problem)
        self._why_gone.set(problem.error())

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
        agent: int = 1,
        builtin: bool = False,
    ) -> Execution:
        """Start a command, as `Sandbox.exec` does, with the same errors and SandboxStateError."""
        names = ("stdin", "stdout") if terminal else ("stdin", "stdout", "stderr")
        streams = {name: self._channel.open_stream() for name in names}
        number, self._next = self._next, self._next + 1
        call = messages.ExecCall(
            exec=number,
            argv=[messages.packed(item) for item in argv],
            streams={name: stream.id for name, stream in streams.items()},
            environment={
                messages.packed(name): messages.packed(value)
                for name, value in (environment or {}).items()
            },
            workdir=None if workdir is None else messages.packed(workdir),
            terminal=terminal,
            agent=agent,
            builtin=builtin,
        )
        # Before the call: a short command may end before this task runs again.
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._statuses[number] = status
        try:
            await self._call("exec", messages.write(call))
        except BaseException as error:
            self._statuses.pop(number, None)
            for stream in streams.values():
                stream.reset("the command did not start")
            self._abandoned.given_up(number, error)
            if isinstance(error, ValueError):
                raise ExecError(
                    f"the command line and environment are too long: {error}.",
                    hint="Pass long input through standard input or a file.",
                ) from error
            raise
        for name in names[1:]:
            await streams[name].end()  # nothing goes that way
        return Execution(self._channel, number, streams, status, self.or_lost)

    async def kill(self, agent: int = 1) -> None:
        """End every process of an agent at once."""
        await self._call("kill", {"agent": agent})

    async def sync(self) -> None:
        """Have the guest write everything back to the shares."""
        await self._call("sync", {})

    async def pause(self) -> None:
        """Halt the machine."""
        await self._call("pause", {})

    async def resume(self) -> None:
        """Let a halted machine go on, its clock right again."""
        await self._call("resume", {})

    async def checkpoint(self, tag: str, *, replace: bool = False) -> None:
        """Keep it as it is now under a tag; it runs on. Raises CheckpointError."""
        call = messages.CheckpointCall(tag=tag, replace=replace)
        await self._call("checkpoint", messages.write(call), limit=None)

    async def fork(self, names: Sequence[str]) -> messages.Forked:
        """Save it for copies of these names, which go on from the folder that this returns."""
        call = messages.write(messages.ForkCall(names=list(names)))
        answer = await self._call("fork", call, limit=None)
        return messages.read(answer if isinstance(answer, dict) else {}, messages.Forked)

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 - the guest's, not ours
        """Begin its end; timeout: seconds for its commands. `wait_until_left` tells of the end."""
        await self._call("stop", {"timeout": timeout})

    async def inspect(self) -> dict[str, Any]:
        """What is known only while it runs."""
        return await self._object("inspect")

    async def stats(self) -> dict[str, Any]:
        """What it uses."""
        return await self._object("stats")

    async def agent_rows(self) -> tuple[messages.AgentRow, ...]:
        """How its agents are, what they do and what they spent."""
        return messages.read(await self._object("agents"), messages.Agents).agents

    async def agents(self) -> tuple[AgentStatus, ...]:
        """As `Sandbox.agents`."""
        return tuple(row.status for row in await self.agent_rows())

    async def publish(self, publish: Publish) -> Port:
        """As `Sandbox.publish`, until the sandbox stops. Raises PortError."""
        call = messages.write(messages.PublishCall(publish=publish))
        return _port(await self._call("publish", call))

    async def unpublish(self, port: int, address: str | None = None) -> Port:
        """As `Sandbox.unpublish`. Raises PortError."""
        call = messages.write(messages.UnpublishCall(port=port, address=address))
        return _port(await self._call("unpublish", call))

    async def published(self) -> tuple[Port, ...]:
        """As `Sandbox.published`."""
        return messages.read(await self._object("published"), messages.Published).ports

    async def follow(self, what: Literal["events", "console"]) -> Stream:
        """A log, from its beginning until the sandbox ends."""
        stream = self._channel.open_stream()
        await self._call("follow", {"what": what, "stream": stream.id})
        await stream.end()
        return stream

    # Sessions

    async def sessions(self) -> tuple[Info, ...]:
        """Those that there are."""
        return messages.read(await self._object("sessions"), messages.Sessions).sessions

    async def open_session(
        self,
        session: Session,
        argv: Sequence[str],
        *,
        size: tuple[int, int],
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> bool:
        """Start a program in a session of its own; False when there is one of that name already.

        argv: empty for what the session is for: its agent's program, or a shell.
        size: rows, columns. Raises as `exec`, and UsageError for a name that is none.
        """
        call = messages.OpenCall(
            agent=session[0],
            session=session[1],
            argv=[messages.packed(item) for item in argv],
            environment={
                messages.packed(name): messages.packed(value)
                for name, value in (environment or {}).items()
            },
            workdir=None if workdir is None else messages.packed(workdir),
            terminal=size,
        )
        answer = await self._call("session-open", messages.write(call))
        return isinstance(answer, dict) and answer.get("opened") is True

    async def attach_session(
        self, session: Session, size: tuple[int, int], *, watch: bool = False
    ) -> Attachment:
        """See a session, and type. Raises SandboxStateError when there is none of that name."""
        stream = self._channel.open_stream()
        number, self._next = self._next, self._next + 1
        over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._ends[number] = over
        call = messages.AttachCall(
            attachment=number,
            agent=session[0],
            session=session[1],
            stream=stream.id,
            rows=size[0],
            columns=size[1],
            watch=watch,
        )

        async def resize(rows: int, columns: int) -> None:
            size = {"attachment": number, "rows": rows, "columns": columns}
            await self._call("session-resize", size)

        try:
            await self._call("session-attach", messages.write(call))
        except BaseException:
            self._ends.pop(number, None)
            stream.reset("it is not attached")
            raise
        return Attachment(stream, over, resize)

    async def capture_session(self, session: Session, *, history: int = 0) -> str:
        """Its screen as text, after so many lines that have left it."""
        answer = await self._session("session-capture", session, history=history)
        text = answer.get("text") if isinstance(answer, dict) else None
        return text if isinstance(text, str) else ""

    async def type_in_session(self, session: Session, data: bytes) -> None:
        """Press these keys, as a terminal would send them."""
        await self._session("session-type", session, data=data.decode("latin-1"))

    async def end_session(self, session: Session) -> None:
        """Close its terminal; its program is killed if it stays."""
        await self._session("session-end", session)

    async def _session(self, method: str, session: Session, **more: Any) -> object:
        return await self._call(method, {"agent": session[0], "session": session[1], **more})

    async def or_lost(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`; SandboxGoneError when the sandbox ends first."""
        return await self._why_gone.guard(awaitable)

    async def reason(self, seconds: float = _SETTLING) -> CorralError | None:
        """Why it is gone, given so long to be known; None while it lives."""
        await self._why_gone.settle(seconds)
        return self._why_gone.reason

    async def _object(self, method: str) -> dict[str, Any]:
        answer = await self._call(method, {})
        if not isinstance(answer, dict):
            raise ChannelError(f"the keeper answered {method} with no object.")
        return answer

    async def _call(
        self, method: str, params: dict[str, Any], limit: float | None = _CALL_TIME
    ) -> object:
        try:
            return await self.or_lost(self._channel.call(method, params, timeout=limit))
        except GuestError as error:
            raise messages.read(error.data, Problem).error() from error

    async def greet(self) -> None:
        """Make sure that we understand each other. Raises SandboxStateError."""
        self.hello = messages.read(await self._greeting(), messages.Hello)

    async def _greeting(self) -> dict[str, Any]:
        answer = await self._call("hello", {"version": VERSION})
        return answer if isinstance(answer, dict) else {}


def _port(answer: object) -> Port:
    return messages.read(answer if isinstance(answer, dict) else {}, Port)


@contextlib.asynccontextmanager
async def connect(name: str) -> AsyncIterator[Kept]:
    """The sandbox `name`, which must have a keeper.

    Raises UnknownSandboxError, SandboxStateError, and whatever ended it; inside, an error that
    comes of its end is replaced by the reason for that.
    """
    record = Record.find(name)
    sock = await _dial(record)
    why_gone = Reason()
    channel = await Channel.start(sock, peer="the keeper")
    kept = Kept(record, channel, why_gone)
    async with channel:
        watch = asyncio.create_task(_watch(record, channel, why_gone), name="watch-keeper")
        try:
            await kept.greet()
            yield kept
        except (ChannelError, SandboxGoneError, StreamResetError) as error:
            reason = await kept.reason()
            if reason is None or reason is error:
                raise
            raise reason from error
        finally:
            watch.cancel()


async def _watch(record: Record, channel: Channel, why_gone: Reason) -> None:
    """When the channel ends without a reason given: why.

    A keeper that is gone has left its lock: the kernel frees it once it has closed all that the
    keeper had, this socket, too. Looked at now and then, as one that lives on and has cut off only
    this client keeps it: a thread that waits for the lock would keep this process from ending.
    """
    error = await channel.wait_closed()
    if why_gone.reason is not None:
        return
    until = time.monotonic() + _LEAVING
    while record.is_kept():
        if time.monotonic() >= until:
            why_gone.set(_cut_off(record.name, error))
            return
        await asyncio.sleep(_LOOK)
    problem = record.status().problem
    why_gone.set(problem.error() if problem is not None else error)


def _cut_off(name: str, error: CorralError) -> CorralError:
    return ChannelError(
        f"the keeper of {name} cut off this client; the sandbox runs on.",
        hint=f"Try again. keeper.log of the folder that `corral inspect {name}` names may say why.",
        detail=error.message,
    )


async def _dial(record: Record) -> socket.socket:
    status = record.status()
    if status.state in ("stopped", "failed"):
        raise _not_there(record)
    path = os.path.join(status.run_folder, SOCKET)  # noqa: PTH118 - may be relative to nothing
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, path)
        if peer_uid(sock) != os.getuid():
            raise PermissionError(1, "it is another user's")
    except OSError as error:
        sock.close()
        if record.status().state in ("stopped", "failed"):
            raise _not_there(record) from error
        raise SandboxStateError(
            f"the sandbox {record.name} does not answer yet: {error.strerror}.",
            hint="Try again when it is up.",
        ) from error
    return sock


def _not_there(record: Record) -> CorralError:
    """Why there is nobody to talk to."""
    status = record.status()
    hint = f"Start it: corral start {record.name}"
    if status.problem is None:
        return SandboxStateError(f"the sandbox {record.name} is stopped.", hint=hint)
    return SandboxStateError(
        f"the sandbox {record.name} does not run: {status.problem.message}",
        hint=status.problem.hint or hint,
        detail=status.problem.detail,
    )
