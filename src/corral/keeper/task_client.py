"""The tasks of a kept sandbox, from another process: as `corral.tasks.Tasks`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from ..channel import Channel
from ..errors import ChannelError, SandboxGoneError
from ..tasks.model import Heartbeat, Llm, Outgoing, Result, Task, Transcript
from ..tasks.summary import Summary
from . import messages
from .model import Problem

T = TypeVar("T")
_Call = Callable[[str, dict[str, Any]], Awaitable[object]]
_MESSAGES = msgspec.json.Decoder(Result | Heartbeat | Transcript | Llm)
_PROBLEM = msgspec.json.Decoder(Problem)


class KeptTasks:
    """Given to the keeper, which does them whether this process lives or not."""

    def __init__(self, channel: Channel, call: _Call) -> None:
        self._channel = channel
        self._call = call

    async def submit(self, task: Task, *, agent: int = 1, number: str | None = None) -> str:
        """Give a task; returns its id. Raises TaskError."""
        fields = msgspec.to_builtins(task)
        call = messages.TaskCall(task=fields, agent=agent, id=number)
        answer = await self._call("task", messages.write(call))
        return _read(answer, messages.TaskTaken).id

    async def follow(self, number: str) -> AsyncGenerator[Outgoing, None]:
        """What a task has said and says; its result is the last. Raises TaskError."""
        stream = self._channel.open_stream()
        rest = b""
        try:
            await self._call("task-follow", {"id": number, "stream": stream.id})
            await stream.end()
            while data := await stream.read():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    message = _message(line)
                    yield message
                    if isinstance(message, Result):
                        return
        finally:
            stream.reset("not needed any more")
        raise SandboxGoneError("the sandbox ended before the task did.")

    async def result(self, number: str) -> Result:
        """How a task ended, once it has. Raises TaskError for one that is not known."""
        async with contextlib.aclosing(self.follow(number)) as found:
            async for message in found:
                if isinstance(message, Result):
                    return message
        raise SandboxGoneError("the sandbox ended before the task did.")

    async def cancel(self, number: str) -> None:
        """End a task; one that has ended stays as it is. Raises TaskError for none."""
        await self._call("task-cancel", {"id": number})

    async def listed(self) -> list[Summary]:
        """Those that are known, the oldest first."""
        return _read(await self._call("task-list", {}), messages.TaskList).tasks


def _message(line: bytes) -> Outgoing:
    try:
        found: Outgoing = _MESSAGES.decode(line)
        return found
    except msgspec.ValidationError:
        pass
    try:
        problem = _PROBLEM.decode(line)
    except msgspec.MsgspecError as error:
        raise ChannelError(f"the keeper said something else of a task: {error}.") from error
    raise problem.error()


def _read(answer: object, kind: type[T]) -> T:
    return messages.read(answer if isinstance(answer, dict) else {}, kind)
