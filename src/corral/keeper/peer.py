"""One client of a keeper: its requests, its commands, and the bytes between it and the guest.

A stream of the client and one of the guest are joined by a task that reads one and writes the
other. Both bound what is in flight by credit, so a client that does not read stops its own
commands' output and nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from corral_guest import wire

from ..channel import Execution, Stream
from ..channel.server import ServedChannel
from ..errors import (
    ChannelError,
    CorralError,
    ExecError,
    SandboxError,
    SandboxGoneError,
    SandboxStateError,
    StreamResetError,
)
from ..tasks import parse
from ..terminals.tap import Tap
from . import messages
from .keeper import Keeper
from .model import VERSION, Problem
from .running import Running
from .session_calls import SessionCalls

_STREAMS = ({"stdin", "stdout", "stderr"}, {"stdin", "stdout"})  # without and with a terminal
MAX_PENDING = 1024  # requests of one client that wait for their answer
MAX_OVER = 256  # commands of one client that ended, whose leftovers can still be ended
LAST_WRITES = 2.0  # seconds for a client to take what it was told last
_SIGNAL_TIME = 10.0  # seconds for a guest to take a signal
_HANG_UP_GRACE = 2.0  # seconds

Spawn = Callable[[Coroutine[object, object, None], str], None]


class Peer:
    """Serves one connection until its end. spawn: starts a task that somebody owns."""

    def __init__(self, keeper: Keeper, hello: messages.Hello, spawn: Spawn) -> None:
        self._keeper = keeper
        self._hello = hello
        self._spawn = spawn
        self._running: dict[int, Running] = {}
        self._taps: dict[int, Tap] = {}
        self._taken: set[int] = set()  # the client's numbers of those that run or begin
        self._doomed: set[int] = set()  # of those that begin: to be ended once they have
        self._over: dict[int, Execution] = {}  # the latest that run no more
        self._greeted = False
        self._pending = 0
        self._channel: ServedChannel
        self._sessions = SessionCalls(keeper.sessions, spawn, self._refuse)
        self._methods: dict[str, Callable[[dict[str, Any]], Coroutine[object, object, Any]]] = {
            "hello": self._greet,
            "signal": self._signal,
            "end": self._end,
            "resize": self._resize,
            "kill": self._kill,
            "sync": self._sync,
            "pause": self._pause,
            "resume": self._resume,
            "checkpoint": self._checkpoint,
            "fork": self._fork,
            "stop": self._stop,
            "inspect": self._inspect,
            "stats": self._stats,
            "agents": self._agents,
            "publish": self._publish,
            "unpublish": self._unpublish,
            "published": self._published,
            **self._sessions.methods,
            "task": self._task,
            "task-cancel": self._cancel_task,
            "task-list": self._list_tasks,
        }

    async def serve(self, sock: socket.socket) -> None:
        """Until the client is gone; its commands that run on then get SIGHUP."""
        self._channel = await ServedChannel.serve(sock, self._requested)
        try:
            await self._channel.wait_closed()
        finally:
            await self._channel.aclose()
            self._sessions.close()
            await asyncio.gather(*(_hang_up(each) for each in self._running.values()))

    async def dismiss(self, problem: Problem) -> None:
        """Tell the client why the sandbox ends, and close."""
        self._channel.tell("gone", {"problem": messages.write(problem)})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES):
                await self._channel.written()
        await self._channel.aclose()

    # Requests

    def _requested(self, request: wire.Request) -> None:
        """A request came. Streams that it names are open before the next frame is looked at."""
        if not self._greeted and request.method != "hello":
            raise ChannelError("the first request is not a greeting.")
        if self._pending >= MAX_PENDING:
            raise ChannelError(f"more than {MAX_PENDING} requests wait for their answers.")
        if request.method == "exec":
            call = messages.read(request.params, messages.ExecCall)
            streams = self._open(call)
            self._spawn(self._exec(request.id, call, streams), "exec")
        elif request.method == "follow":
            follow = messages.read(request.params, messages.FollowCall)
            stream = self._channel.register(follow.stream)
            self._channel.answer(request.id, {})
            self._spawn(self._follow(follow, stream), "follow")
        elif request.method == "session-attach":
            attaching = self._sessions.requested(self._channel, request.id, request.params)
            self._spawn(attaching, "attached")
        elif request.method == "task-follow":
            wanted = messages.read(request.params, messages.TaskFollowCall)
            stream = self._channel.register(wanted.stream)
            self._channel.answer(request.id, {})
            self._spawn(self._follow_task(wanted.id, stream), "task-follow")
        elif request.method in self._methods:
            self._greeted = True
            self._pending += 1
            self._spawn(self._answer(request), request.method)
        else:
            text = f"no method {request.method}"
            self._channel.refuse(request.id, messages.UNKNOWN_METHOD, text, {})

    async def _answer(self, request: wire.Request) -> None:
        try:
            result = await self._methods[request.method](request.params)
        except CorralError as error:
            self._refuse(request.id, error)
        except Exception as error:
            self._refuse(request.id, self._fault(error))
            raise
        else:
            self._channel.answer(request.id, result or {})
        finally:
            self._pending -= 1

    def _refuse(self, number: int, error: CorralError) -> None:
        if not isinstance(error, SandboxGoneError):  # else the reason is on its way, for all
            data = messages.write(Problem.of(error))
            self._channel.refuse(number, messages.FAILED, error.message, data)

    def _fault(self, error: Exception) -> SandboxError:
        """A fault of ours, which the keeper's log tells more of."""
        return SandboxError(
            f"internal error in the keeper: {type(error).__name__}: {error}",
            hint="This is a fault in corral. Report it with keeper.log of the folder that "
            f"`corral inspect {self._keeper.name}` names.",
        )

    async def _greet(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read({"version": params.get("version")}, messages.HelloCall)
        if call.version != VERSION:
            raise SandboxStateError(
                f"the sandbox {self._hello.name} was started by another version of corral.",
                hint=f"Stop it and start it again: corral stop {self._hello.name}",
            )
        self._hello = messages.Hello(**{**messages.write(self._hello), "state": self._keeper.state})
        return messages.write(self._hello)

    async def _signal(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.SignalCall)
        if not 0 < call.signal <= messages.MAX_SIGNAL:
            raise ExecError(f"there is no signal {call.signal}.")
        self._keeper.check_running()
        if (running := self._running.get(call.exec)) is not None:
            await running.execution.signal(call.signal, group=call.group)

    async def _end(self, params: dict[str, Any]) -> None:
        number = messages.read(params, messages.EndCall).exec
        running = self._running.get(number)
        if running is None and number in self._taken:  # perhaps after a pause: nothing to wait for
            self._doomed.add(number)
            return
        self._keeper.check_running()
        execution = running.execution if running is not None else self._over.get(number)
        if execution is not None:
            await execution.end()

    async def _resize(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.ResizeCall)
        if not (0 < call.rows < 1 << 16 and 0 < call.columns < 1 << 16):
            raise ExecError("no terminal has that size.")
        self._keeper.check_running()
        if (running := self._running.get(call.exec)) is not None:
            if (tap := self._taps.get(call.exec)) is not None:
                tap.resized(call.rows, call.columns)
            await running.execution.resize(call.rows, call.columns)

    async def _kill(self, params: dict[str, Any]) -> None:
        await self._keeper.kill(messages.read(params, messages.KillCall).agent)

    async def _sync(self, _params: dict[str, Any]) -> None:
        await self._keeper.sync()

    async def _pause(self, _params: dict[str, Any]) -> None:
        await self._keeper.pause()

    async def _resume(self, _params: dict[str, Any]) -> None:
        await self._keeper.resume()

    async def _checkpoint(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.CheckpointCall)
        await self._keeper.checkpoint(call.tag, replace=call.replace)

    async def _fork(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.ForkCall)
        folder, notice = await self._keeper.fork(call.names, lambda: self._channel.failure is None)
        return messages.write(messages.Forked(folder=str(folder), notice=notice))

    async def _stop(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.StopCall)
        self._keeper.stop(min(max(call.timeout, 0.0), messages.MAX_STOP))

    async def _inspect(self, _params: dict[str, Any]) -> dict[str, Any]:
        return await self._keeper.inspect()

    async def _stats(self, _params: dict[str, Any]) -> dict[str, Any]:
        return await self._keeper.stats()

    async def _agents(self, _params: dict[str, Any]) -> dict[str, Any]:
        return messages.write(messages.Agents(agents=await self._keeper.agents()))

    async def _publish(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.PublishCall)
        return messages.write(await self._keeper.publish(call.publish))

    async def _unpublish(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.UnpublishCall)
        return messages.write(await self._keeper.unpublish(call.port, call.address))

    async def _published(self, _params: dict[str, Any]) -> dict[str, Any]:
        return messages.write(messages.Published(ports=await self._keeper.published()))

    # Tasks

    async def _task(self, params: dict[str, Any]) -> dict[str, Any]:
        call = messages.read(params, messages.TaskCall)
        wanted = parse.task(call.task)
        number = await self._keeper.present_tasks().submit(wanted, agent=call.agent, number=call.id)
        return messages.write(messages.TaskTaken(id=number))

    async def _cancel_task(self, params: dict[str, Any]) -> None:
        call = messages.read(params, messages.TaskCancelCall)
        await self._keeper.present_tasks().cancel(call.id)

    async def _list_tasks(self, _params: dict[str, Any]) -> dict[str, Any]:
        found = await self._keeper.present_tasks().listed()
        return messages.write(messages.TaskList(tasks=found))

    async def _follow_task(self, number: str, stream: Stream) -> None:
        with contextlib.suppress(StreamResetError, ChannelError):  # who asked is gone
            try:
                tasks = self._keeper.present_tasks()
                async with contextlib.aclosing(tasks.follow(number)) as found:
                    async for message in found:
                        await stream.write(msgspec.json.encode(message) + b"\n")
            except CorralError as error:
                if isinstance(error, StreamResetError | ChannelError):
                    raise
                await stream.write(msgspec.json.encode(Problem.of(error)) + b"\n")
            await stream.end()

    # Commands

    def _open(self, call: messages.ExecCall) -> dict[str, Stream]:
        if set(call.streams) != _STREAMS[call.terminal is not None]:
            raise ChannelError("a command's streams are not those that it has.")
        if call.exec < 1 or call.exec in self._taken or not call.argv:
            raise ChannelError("a command has a number that is taken, or no arguments.")
        streams = {name: self._channel.register(number) for name, number in call.streams.items()}
        self._taken.add(call.exec)
        return streams

    async def _exec(
        self, request: int, call: messages.ExecCall, streams: dict[str, Stream]
    ) -> None:
        try:
            running = await self._keeper.exec(
                [messages.unpacked(item) for item in call.argv], **_options(call)
            )
        except Exception as error:
            self._taken.discard(call.exec)
            self._doomed.discard(call.exec)
            for stream in streams.values():
                stream.reset("the command did not start")
            if not isinstance(error, CorralError):
                self._refuse(request, self._fault(error))
                raise
            self._refuse(request, error)
            return
        self._running[call.exec] = running
        self._channel.answer(request, {})
        status: int | None = None
        if self._channel.failure is not None:  # the client went meanwhile
            self._spawn(_hang_up(running), "hang-up")
        if call.exec in self._doomed:
            self._doomed.discard(call.exec)
            self._spawn(_end(running), "end")
        try:
            status = await self._attend(running, streams, self._tapped(call, running))
        except CorralError:  # the sandbox is gone, which all clients are told
            self._keeper.forget(running)
        else:
            self._keeper.ended(running, status)
            self._channel.tell("exited", {"exec": call.exec, "status": status})
        finally:
            del self._running[call.exec]
            self._taken.discard(call.exec)
            self._over[call.exec] = running.execution
            if len(self._over) > MAX_OVER:
                del self._over[next(iter(self._over))]
            if (tap := self._taps.pop(call.exec, None)) is not None:
                tap.end("ended" if status is None else f"ended with status {status}")

    def _tapped(self, call: messages.ExecCall, running: Running) -> Tap | None:
        """What writes down what a command shows on its terminal, if it has one."""
        if call.terminal is None:
            return None
        tap = self._taps[call.exec] = Tap(lambda: self._keeper.recordings, running, call.terminal)
        self._spawn(tap.serve(), "tap")
        return tap

    async def _attend(self, running: Running, streams: dict[str, Stream], tap: Tap | None) -> int:
        """Move the command's bytes; its status, once all its output is under way."""
        execution = running.execution
        self._spawn(_pump(streams["stdin"], execution.stdin), "stdin")
        outputs = [_pump(execution.stdout, streams["stdout"], tap)]
        if execution.stderr is not None:
            outputs.append(_pump(execution.stderr, streams["stderr"]))
        _none, *_ = await asyncio.gather(*outputs)
        return await execution.wait()

    async def _follow(self, call: messages.FollowCall, stream: Stream) -> None:
        journal = self._keeper.journals[call.what]
        with contextlib.suppress(CorralError):  # the client has had enough, or is gone
            async with contextlib.aclosing(journal.follow()) as pieces:
                async for data in pieces:
                    await stream.write(data)
            await stream.end()


def _options(call: messages.ExecCall) -> dict[str, Any]:
    """The keyword arguments of `Sandbox.exec`."""
    options: dict[str, Any] = {
        "environment": {
            messages.unpacked(name): messages.unpacked(value)
            for name, value in call.environment.items()
        },
        "workdir": None if call.workdir is None else messages.unpacked(call.workdir),
        "terminal": call.terminal,
        "agent": call.agent,
    }
    if call.builtin:
        options["builtin"] = True
    return options


async def _end(running: Running) -> None:
    with contextlib.suppress(CorralError):  # a guest that stands still has it to come
        await running.execution.end()


async def _hang_up(running: Running) -> None:
    """As a terminal that is closed: SIGHUP, and a moment later nobody reads any more.

    That moment lets it act on the signal before it dies of a closed pipe.
    """
    execution = running.execution
    with contextlib.suppress(CorralError, TimeoutError):
        async with asyncio.timeout(_SIGNAL_TIME):
            await execution.signal(signal.SIGHUP, group=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running.over.wait(), _HANG_UP_GRACE)
    for stream in (execution.stdout, execution.stderr):
        if stream is not None:
            stream.reset("nobody reads it")


async def _pump(source: Stream, target: Stream, tap: Tap | None = None) -> None:
    """Bytes from one stream into another until either ends."""
    gone = False
    try:
        while data := await source.read():
            if tap is not None:
                tap.feed(data)
            if gone:
                continue  # for the moment that `_hang_up` leaves
            try:
                await target.write(data)
            except StreamResetError:
                source.reset("nobody reads it")
                return
            except CorralError:
                gone = True
        await target.end()
    except CorralError:  # given up, or the whole side is gone
        target.reset("there is no more of it")
